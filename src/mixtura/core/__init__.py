"""Ring 0: immutable Gaussian mixtures and EM on moments. Tensors in, tensors out; see README.md in this folder."""

FAMILIES = {
    "spherical": "mixtura.core.covariance.spherical:Spherical",
    "diagonal": "mixtura.core.covariance.diagonal:Diagonal",
    "lowrank": "mixtura.core.covariance.lowrank:LowRank",
    "tied": "mixtura.core.covariance.tied:Tied",
    "full": "mixtura.core.covariance.full:Full",
}

LEAVE_ONE_OUT = {
    "spherical": "mixtura.core.leave_one_out.spherical:SphericalWithout",
    "diagonal": "mixtura.core.leave_one_out.diagonal:DiagonalWithout",
    "tied": "mixtura.core.leave_one_out.tied:TiedWithout",
    "full": "mixtura.core.leave_one_out.full:FullWithout",
}
"""The families whose scores of a sample without itself have an exact form; the others are cross-fitted."""

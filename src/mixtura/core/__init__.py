"""Ring 0: immutable Gaussian mixtures and EM on moments. Tensors in, tensors out; see README.md in this folder."""

FAMILIES = {
    "spherical": "mixtura.core.covariance.spherical:Spherical",
    "diagonal": "mixtura.core.covariance.diagonal:Diagonal",
    "lowrank": "mixtura.core.covariance.lowrank:LowRank",
    "tied": "mixtura.core.covariance.tied:Tied",
    "full": "mixtura.core.covariance.full:Full",
}

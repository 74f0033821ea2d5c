"""Ring 0: mixtures of Gaussians as values, and EM as sums. Tensors in, tensors out; see README.md beside this file."""

FAMILIES = {
    "spherical": "mixtura.core.covariance.spherical:Spherical",
    "diagonal": "mixtura.core.covariance.diagonal:Diagonal",
    "lowrank": "mixtura.core.covariance.lowrank:LowRank",
    "tied": "mixtura.core.covariance.tied:Tied",
    "full": "mixtura.core.covariance.full:Full",
}

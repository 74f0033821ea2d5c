"""Ring 0: mixtures of Gaussians as values, and EM as sums. Tensors in, tensors out; see README.md beside this file."""

FAMILIES = {
    "spherical": "mixtura.core.covariance:Spherical",
    "diagonal": "mixtura.core.covariance:Diagonal",
    "lowrank": "mixtura.core.covariance:LowRank",
    "tied": "mixtura.core.covariance:Tied",
    "full": "mixtura.core.covariance:Full",
}

"""Ring 0: immutable Gaussian mixtures and EM on moments. Tensors in, tensors out; see README.md in this folder."""

FAMILIES = {
    "spherical": "mixtura.core.covariance:Spherical",
    "diagonal": "mixtura.core.covariance:Diagonal",
    "lowrank": "mixtura.core.covariance:LowRank",
    "tied": "mixtura.core.covariance:Tied",
    "full": "mixtura.core.covariance:Full",
}

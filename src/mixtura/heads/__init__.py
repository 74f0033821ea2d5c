"""Heads: nn.Modules that take the place of the last linear layer."""

HEADS = {
    "gaussian": "mixtura.heads.gaussian:GaussianHead",
    "sdgm": "mixtura.heads.sdgm:SDGMHead",
    "online": "mixtura.heads.online:OnlineGaussianHead",
    "vmf": "mixtura.heads.vmf:VonMisesFisherHead",
    "prototype": "mixtura.heads.prototype:PrototypeHead",
    "linear": "mixtura.heads.linear:LinearHead",
    "random_projection": "mixtura.heads.random_projection:RandomProjectionHead",
}

"""Features: N x D numbers, where they are stored, how they are made smaller and who is near whom."""

PROJECTIONS = {
    "pca": "mixtura.features.projection:PCA",
    "lda": "mixtura.features.projection:LDA",
    "whiten": "mixtura.features.projection:Whiten",
    "random": "mixtura.features.projection:Random",
    "random_features": "mixtura.features.nonlinear:RandomFeatures",
    "power": "mixtura.features.nonlinear:Power",
    "blocks": "mixtura.features.blocks:Blocks",
    "l2": "mixtura.features.projection:L2",
    "identity": "mixtura.features.projection:Identity",
}

INDEXES = {"exact": "mixtura.features.neighbors:Exact", "ivf": "mixtura.features.ann:Inverted"}
"""What finds neighbors by name: an :class:`mixtura.features.neighbors.Index`."""

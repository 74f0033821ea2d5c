"""Training objectives; each is a loss function of a head, samples and labels, of photos that are drawn again, or of
episodes.

There is one table per kind of input, so choices and help texts can be filtered without importing the objectives.
"""

HEAD_OBJECTIVES = {
    "conditional": "mixtura.objectives.classification:Conditional",
    "generative": "mixtura.objectives.classification:Generative",
    "hybrid": "mixtura.objectives.classification:Hybrid",
    "large_margin": "mixtura.objectives.classification:LargeMargin",
}
"""Objectives of a head on embeddings of a frozen encoder: conditional, joint, or with a margin."""

PHOTO_OBJECTIVES = {"reconstruction": "mixtura.objectives.reconstruction:Reconstruction"}
"""Objectives of an encoder and a decoder together, on photos without labels."""

EPISODE_OBJECTIVES = {"prototypical": "mixtura.objectives.prototypical:Prototypical"}
"""Objectives of an encoder on episodes: support samples of some classes, and queries to classify."""

SUBCLASS_OBJECTIVES = {"scgm-g": "mixtura.objectives.coarse_to_fine:ScgmG"}
"""Objectives of embeddings, of which some hidden subclass is known beside the class."""

BY_INPUT = {
    "head": HEAD_OBJECTIVES,
    "photos": PHOTO_OBJECTIVES,
    "episodes": EPISODE_OBJECTIVES,
    "subclasses": SUBCLASS_OBJECTIVES,
}
"""Tables by the input of their objectives, which is their ``reads``."""

OBJECTIVES = {name: target for table in BY_INPUT.values() for name, target in table.items()}
"""Every objective by name."""

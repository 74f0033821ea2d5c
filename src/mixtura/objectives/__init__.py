"""Training objectives; each is a loss function of a head, samples and labels, of photos that are drawn again, of
episodes, or of two views.

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

SUBCLASS_OBJECTIVES = {
    "scgm-g": "mixtura.objectives.coarse_to_fine:ScgmG",
    "scgm-a": "mixtura.objectives.angular:ScgmA",
}
"""Objectives of embeddings, of which some hidden subclass is known beside the class."""

PAIR_OBJECTIVES = {
    "supcon": "mixtura.objectives.contrastive:SupCon",
    "ancor": "mixtura.objectives.contrastive:Ancor",
    "maskcon": "mixtura.objectives.contrastive:MaskCon",
}
"""Objectives of embeddings of one view, on those of another and of earlier photos by a slow copy of the network."""

BY_INPUT = {
    "head": HEAD_OBJECTIVES,
    "photos": PHOTO_OBJECTIVES,
    "episodes": EPISODE_OBJECTIVES,
    "subclasses": SUBCLASS_OBJECTIVES,
    "pairs": PAIR_OBJECTIVES,
}
"""Tables by the input of their objectives, which is their ``reads``."""

OBJECTIVES = {name: target for table in BY_INPUT.values() for name, target in table.items()}
"""Every objective by name."""

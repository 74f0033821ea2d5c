"""Objectives: what training lowers; each is a function of a head, rows and labels.

There is one table for each kind of rows that objectives read, so that choices and help texts can be filtered without
importing any of them.
"""

HEAD_OBJECTIVES = {
    "conditional": "mixtura.objectives.classification:Conditional",
    "generative": "mixtura.objectives.classification:Generative",
    "hybrid": "mixtura.objectives.classification:Hybrid",
    "large_margin": "mixtura.objectives.classification:LargeMargin",
}
"""Those of a head on the embeddings of a frozen encoder: of the class given the row, of both together, or a margin."""

BY_INPUT = {"head": HEAD_OBJECTIVES}
"""Every table by what its objectives read, which is their ``reads``."""

OBJECTIVES = {name: target for table in BY_INPUT.values() for name, target in table.items()}
"""Every objective by name."""

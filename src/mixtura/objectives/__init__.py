"""Objectives: what training lowers; each is a function of class log-scores and labels."""

OBJECTIVES = {
    "conditional": "mixtura.objectives.classification:Conditional",
    "generative": "mixtura.objectives.classification:Generative",
    "hybrid": "mixtura.objectives.classification:Hybrid",
    "large_margin": "mixtura.objectives.classification:LargeMargin",
}

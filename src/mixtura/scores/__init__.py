"""Typicality scores of items; functions of arrays that are independent of the model.

``base`` has the protocol of a fitted score, ``typicality`` the ranks that turn any of them into a p-value.
"""

DENSITY = "density"
"""The score that every typicality has by itself; see :class:`mixtura.scores.typicality.Typicality`."""

AUTO = "auto"
"""Lets the classes that are left out in turn choose the score."""

SCORES = {
    "mahalanobis": "mixtura.scores.mahalanobis:Mahalanobis",
    "unit-mahalanobis": "mixtura.scores.mahalanobis:UnitMahalanobis",
    "relative-mahalanobis": "mixtura.scores.mahalanobis:RelativeMahalanobis",
    "knn": "mixtura.scores.knn:KNearest",
    "vim-residual": "mixtura.scores.residual:Residual",
}
"""Scores that may take the place of the density; what recipes choose from besides ``density`` and ``auto``."""

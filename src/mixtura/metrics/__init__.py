"""Metrics: arrays in, numbers out.

Conventions: shares lie in [0, 1]; a score is higher for more known items; classes are indices from 0.
"""

METRICS = {
    "accuracy": "mixtura.metrics.classification:accuracy",
    "balanced_accuracy": "mixtura.metrics.classification:balanced_accuracy",
    "top_k": "mixtura.metrics.classification:top_k",
    "confusion": "mixtura.metrics.classification:confusion",
    "recall": "mixtura.metrics.classification:recall",
    "ece": "mixtura.metrics.calibration:ece",
    "reliability": "mixtura.metrics.calibration:reliability",
    "nll": "mixtura.metrics.calibration:nll",
    "brier": "mixtura.metrics.calibration:brier",
    "auroc": "mixtura.metrics.detection:auroc",
    "aupr": "mixtura.metrics.detection:aupr",
    "fpr_at_tpr": "mixtura.metrics.detection:fpr_at_tpr",
    "risk_coverage": "mixtura.metrics.selective:risk_coverage",
    "aurc": "mixtura.metrics.selective:aurc",
    "precision_at": "mixtura.metrics.retrieval:precision_at",
    "precision_ceiling": "mixtura.metrics.retrieval:precision_ceiling",
    "average_precision": "mixtura.metrics.retrieval:average_precision",
    "adjusted_rand": "mixtura.metrics.clustering:adjusted_rand",
    "mutual_information": "mixtura.metrics.clustering:mutual_information",
    "silhouette": "mixtura.metrics.clustering:silhouette",
    "stability": "mixtura.metrics.clustering:stability",
    "wilson": "mixtura.metrics.intervals:wilson",
    "binomial_sigma": "mixtura.metrics.intervals:binomial_sigma",
    "t_interval": "mixtura.metrics.intervals:t_interval",
}

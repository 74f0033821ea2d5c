"""The verdict rule, written once: for ``Model``, for ``MixtureClassifier`` and for the runner of an export.

It needs NumPy only: ``mixtura export`` writes everything below the import into the runner, a single-file program.
"""

import numpy as np

FAR_FROM_ALL, BETWEEN_CLASSES, UNUSUAL_FOR_CLASS = "far_from_all", "between_classes", "unusual_for_class"
RIVAL_SHARE = 0.5  # a runner-up with at least this share of the winner's probability is a rival


def judge(
    posterior: np.ndarray,
    typicality: np.ndarray,
    pooled: np.ndarray,
    far: np.ndarray,
    limit: float,
    min_probability: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Verdict (match, unsure or unknown) and reason (empty for a match) of each of N rows.

    Args:
        posterior: N x C probabilities of the classes, given that the row belongs to one of them.
        typicality: p-values in [0, 1].
        pooled: p-values in [0, 1], ranked among the items of all classes.
        far: whether a row is far from everything.
        limit: typicality below which a row is unknown.
        min_probability: largest probability below which a row is unsure.
    """
    probability = posterior.max(1)
    rival = np.partition(posterior, -2, axis=1)[:, -2] if posterior.shape[1] > 1 else np.zeros_like(probability)
    unknown = typicality < limit
    unsure = ~unknown & (probability < min_probability)
    torn = rival >= RIVAL_SHARE * probability
    own = np.where(pooled >= limit, UNUSUAL_FOR_CLASS, FAR_FROM_ALL)
    why = np.where(far, FAR_FROM_ALL, np.where(torn, BETWEEN_CLASSES, own))
    verdict = np.where(unknown, "unknown", np.where(unsure, "unsure", "match"))
    return verdict, np.where(unknown, why, np.where(unsure, BETWEEN_CLASSES, ""))

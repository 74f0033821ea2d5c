"""The verdict rule against a loop that says it in words."""

import numpy as np
import pytest

from mixtura.scores.verdict import RIVAL_SHARE, judge


def in_words(posterior, typicality, pooled, far, limit, min_probability):
    """The rule for one row."""
    probabilities = sorted(posterior, reverse=True)
    if typicality < limit:
        if far:
            return "unknown", "far_from_all"
        if len(probabilities) > 1 and probabilities[1] >= RIVAL_SHARE * probabilities[0]:
            return "unknown", "between_classes"
        return "unknown", "unusual_for_class" if pooled >= limit else "far_from_all"
    return ("unsure", "between_classes") if probabilities[0] < min_probability else ("match", "")


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_the_rule_is_the_one_in_words(classes):
    rng = np.random.default_rng(classes)
    posterior = rng.dirichlet(np.full(classes, 0.4), 3000)
    typicality, pooled = rng.choice([0.01, 0.1, 0.2, 0.9], (2, 3000))
    far = rng.random(3000) < 0.2
    verdict, reason = judge(posterior, typicality, pooled, far, 0.1, 0.6)
    rows = zip(posterior, typicality, pooled, far, strict=True)
    assert list(zip(verdict, reason, strict=True)) == [in_words(*row, 0.1, 0.6) for row in rows]
    assert len(set(zip(verdict, reason, strict=True))) == (3 if classes == 1 else 5)


def test_no_rows_have_no_verdict():
    verdict, reason = judge(np.zeros((0, 3)), *np.zeros((2, 0)), np.zeros(0, dtype=bool), 0.05, 0.5)
    assert len(verdict) == len(reason) == 0

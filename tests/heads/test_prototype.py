"""Prototypes against naive loops; their starts; a scale that cannot be bettered."""

import pytest
import torch
from torch.testing import assert_close

from mixtura.errors import NoDensity, UsageError
from mixtura.heads.prototype import PrototypeHead


def naive(x, p, metric):
    if metric == "cosine":
        return torch.nn.functional.cosine_similarity(x[:, None], p[None], dim=2)
    return -0.5 * (x[:, None] - p[None]).square().mean(2)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize(("pool", "over"), [("soft", torch.logsumexp), ("best", torch.amax)])
def test_scores_are_a_naive_loops(blobs, metric, pool, over):
    x, labels = blobs(modes=2, dtype=torch.float64)
    head = PrototypeHead.from_rows(x, labels, 4, components=(1, 2, 3, 1), metric=metric, pool=pool)
    near = naive((x - head.center) / head.unit, head.prototype, metric) * head.log_scale.exp()
    expected = torch.stack([over(near[:, head.groups.component_class == c], 1) for c in range(4)], 1)
    assert_close(head.class_scores(x), expected, rtol=0, atol=1e-9)
    assert head.n_parameters == 7 * 6 + 1


def test_euclidean_start_is_the_nearest_class_mean(blobs):
    x, labels = blobs(apart=1.0)
    head = PrototypeHead.from_rows(x, labels, 4, metric="euclidean")
    means = torch.stack([x[labels == c].mean(0) for c in range(4)])
    assert (head(x).argmax(1) == torch.cdist(x, means).argmin(1)).all()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_scale_of_the_start_is_the_best(blobs, metric):
    x, labels = blobs(apart=1.0, dtype=torch.float64)
    head = PrototypeHead.from_rows(x, labels, 4, metric=metric)
    loss = torch.nn.functional.nll_loss(head(x), labels)
    (slope,) = torch.autograd.grad(loss, head.log_scale)
    assert abs(float(slope)) < 0.02


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_two_prototypes_beat_one_on_two_modes(blobs, metric):
    x, labels = blobs(n=600, modes=2, dimension=3, apart=3.0, seed=3)
    one, two = (PrototypeHead.from_rows(x, labels, 4, components=g, metric=metric) for g in (1, 2))
    right = [float((head(x).argmax(1) == labels).float().mean()) for head in (one, two)]
    assert right[1] > right[0] + 0.05


def test_a_row_of_zeros_has_a_finite_score_and_gradient(blobs):
    x, labels = blobs()
    head = PrototypeHead.from_rows(x, labels, 4)
    zero = torch.zeros(1, 6, requires_grad=True)
    head(zero).sum().backward()
    assert zero.grad is not None and zero.grad.isfinite().all()


def test_prototypes_refuse_what_they_cannot_do(blobs):
    x, labels = blobs()
    with pytest.raises(UsageError, match=r"no metric 'cosin'. Did you mean 'cosine'"):
        PrototypeHead.from_rows(x, labels, 4, metric="cosin")
    with pytest.raises(UsageError, match="no pool 'mean'"):
        PrototypeHead(6, 4, pool="mean")
    with pytest.raises(UsageError, match="Components"):
        PrototypeHead.from_rows(x, labels, 4, components=0)
    with pytest.raises(NoDensity):
        PrototypeHead(6, 4).log_prob(x)

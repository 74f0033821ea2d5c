"""The linear head against scikit-learn's discriminant analysis and a plain layer."""

import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch.testing import assert_close

from mixtura.errors import DataError, NoDensity, NonFinite, UsageError
from mixtura.heads.linear import LinearHead


def test_start_is_scikit_learns_discriminant_analysis(blobs, untempered):
    x, labels = blobs(dtype=torch.float64)
    head = LinearHead.from_rows(x, labels, 4, shrinkage=0.0)
    rival = LinearDiscriminantAnalysis(solver="lsqr").fit(x.numpy(), labels.numpy())
    found, expected = untempered(head.class_scores(x), torch.from_numpy(rival.decision_function(x.numpy())))
    assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_start_bears_an_offset_and_any_scale(blobs):
    x, labels = blobs(dtype=torch.float64)
    plain = LinearHead.from_rows(x, labels, 4)(x)
    moved = (1e-3 * x + 5).float()
    assert_close(LinearHead.from_rows(moved, labels, 4)(moved).double(), plain, rtol=0, atol=0.02)


def test_more_features_than_rows_need_no_special_case(blobs):
    x, labels = blobs(n=20, dimension=50)
    head = LinearHead.from_rows(x, labels, 4)
    assert (head(x).argmax(1) == labels).all()


def test_zeros_is_a_plain_layer(blobs):
    x, labels = blobs()
    head = LinearHead.from_rows(x, labels, 4, start="zeros")
    assert_close(head.posterior(x), torch.full((300, 4), 0.25))
    assert head.n_parameters == 4 * (6 + 1)


def test_a_linear_head_refuses_what_it_cannot_do(blobs):
    x, labels = blobs()
    with pytest.raises(UsageError, match="one component a class, not 2"):
        LinearHead.from_rows(x, labels, 4, components=2)
    with pytest.raises(UsageError, match="cannot start at 'ones'"):
        LinearHead.from_rows(x, labels, 4, start="ones")
    with pytest.raises(DataError, match="class 4 has 0 of 300 rows"):
        LinearHead.from_rows(x, labels, 5)
    with pytest.raises(NonFinite, match="1 of 300 rows"):
        LinearHead.from_rows(x.index_fill(0, torch.tensor([3]), torch.nan), labels, 4)
    with pytest.raises(NoDensity, match="'linear' has no density"):
        LinearHead(6, 4).log_prob(x)

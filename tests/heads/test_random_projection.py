"""Random features against scikit-learn's discriminant analysis among them; what they bend; what they refuse."""

import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch.testing import assert_close

from mixtura.core.random_matrix import RANDOM_MATRICES
from mixtura.errors import NoDensity, UsageError
from mixtura.heads.linear import LinearHead
from mixtura.heads.random_projection import RandomProjectionHead


@pytest.mark.parametrize("matrix", RANDOM_MATRICES)
def test_start_is_discriminant_analysis_among_the_features(blobs, untempered, matrix):
    x, labels = blobs(apart=1.0, dtype=torch.float64)
    head = RandomProjectionHead.from_rows(x, labels, 4, width=12, matrix=matrix, shrinkage=0.1)
    h = torch.relu((x - head.center) @ head.matrix + head.offset).numpy()
    rival = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=None).fit(h, labels.numpy())
    exact = RandomProjectionHead.from_rows(x, labels, 4, width=12, matrix=matrix, shrinkage=0.0)
    found, expected = untempered(exact.class_scores(x), torch.from_numpy(rival.decision_function(h)))
    assert_close(found.softmax(1), expected.softmax(1), rtol=0, atol=2e-3)
    assert not torch.allclose(exact(x), head(x), atol=1e-3)
    assert head.n_parameters == 4 * 13


def test_borders_bend(blobs):
    """Classes inside and outside a ring, which no line divides."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(800, 2, generator=generator)
    labels = (x.norm(dim=1) > 1.2).long()
    bent, straight = RandomProjectionHead.from_rows(x, labels, 2), LinearHead.from_rows(x, labels, 2)
    assert bent.width == 800
    assert float((bent(x).argmax(1) == labels).float().mean()) > 0.95
    assert float((straight(x).argmax(1) == labels).float().mean()) < 0.7


def test_same_seed_same_head_and_scale_does_not_matter(blobs):
    x, labels = blobs(dtype=torch.float64)
    one = RandomProjectionHead.from_rows(x, labels, 4, width=30)
    assert torch.equal(one(x), RandomProjectionHead.from_rows(x, labels, 4, width=30)(x))
    assert not torch.equal(one(x), RandomProjectionHead.from_rows(x, labels, 4, width=30, seed=1)(x))
    moved = RandomProjectionHead.from_rows(1e3 * x + 1e4, labels, 4, width=30)
    assert_close(moved(1e3 * x + 1e4), one(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dimension", "width"), [(8, 3), (3, 8)])
def test_orthogonal_matrix_is_orthogonal(dimension, width):
    matrix = RANDOM_MATRICES["orthogonal"](dimension, width, torch.Generator().manual_seed(0))
    gram = matrix.T @ matrix if width <= dimension else matrix @ matrix.T
    assert_close(gram, max(dimension, width) * torch.eye(min(dimension, width)), rtol=0, atol=1e-5)
    assert_close(matrix.square().mean().item(), 1.0, rtol=1e-5, atol=0)


def test_older_states_load(blobs):
    x, labels = blobs()
    head = RandomProjectionHead.from_rows(x, labels, 4, width=12)
    older = {"linear.weight": "weight", "linear.bias": "bias", "linear.center": "middle", "linear.unit": "unit"}
    state = {older.get(name, name): value for name, value in head.state_dict().items()}
    again = RandomProjectionHead(6, 4, 12)
    again.load_state_dict(state, strict=True)
    assert torch.equal(again(x), head(x))


def test_random_projection_refuses_what_it_cannot_do(blobs):
    x, labels = blobs()
    with pytest.raises(UsageError, match=r"no random matrix 'gausian'. Did you mean 'gaussian'"):
        RandomProjectionHead.from_rows(x, labels, 4, matrix="gausian")
    with pytest.raises(UsageError, match="0 random features"):
        RandomProjectionHead.from_rows(x, labels, 4, width=0)
    with pytest.raises(UsageError, match="one component a class, not 3"):
        RandomProjectionHead.from_rows(x, labels, 4, components=3)
    with pytest.raises(NoDensity, match="'random_projection' has no density"):
        RandomProjectionHead(6, 4, 10).log_prob(x)

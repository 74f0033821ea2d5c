"""Data that no one wishes for: scores stay finite, covariances positive definite."""

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from mixtura.core import classes, em
from mixtura.core.classes import Plan
from mixtura.core.covariance import FAMILIES, Prior
from mixtura.core.cross_fitting import Folds
from mixtura.testing.covariance_laws import dense

PRIORS = [Prior(), Prior(1.0, 0.0), Prior(0.0, 0.1), Prior(2.0, 0.3)]


@st.composite
def rows(draw):
    """Random rows and labels, then spoiled: copies, constant dimensions, odd units, tiny and empty classes."""
    dimension = draw(st.integers(1, 12))
    counts = draw(st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(sum))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    x = torch.randn(len(labels), dimension, generator=generator, dtype=torch.float64)
    if draw(st.booleans()):  # few distinct rows
        x = x[torch.randint(draw(st.integers(1, len(x))), (len(x),), generator=generator)]
    constant = torch.rand(dimension, generator=generator) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    x[:, constant] = draw(st.sampled_from([0.0, 3.0]))
    x = x * draw(st.sampled_from([1e-5, 1.0, 1e4])) + draw(st.sampled_from([0.0, 1.0, -1e3]))
    return x.to(draw(st.sampled_from([torch.float32, torch.float64]))), labels, len(counts)


def assert_sound(mixture, x, labels, n_classes):
    present = torch.bincount(labels, minlength=n_classes) > 0
    joint = mixture.class_log_prob(x)
    assert joint[:, present].isfinite().all()
    assert (joint[:, ~present] == -torch.inf).all()
    assert mixture.log_prob(x).isfinite().all()
    assert mixture.background().log_prob(x).isfinite().all()
    assert mixture.mean.isfinite().all()
    assert (torch.linalg.eigvalsh(dense(mixture).double()) > 0).all()
    assert torch.isfinite(mixture.sample(5, torch.Generator().manual_seed(0))[0]).all()


@pytest.mark.parametrize("family", FAMILIES)
@hypothesis.given(rows(), st.sampled_from(PRIORS), st.sampled_from([1, 2]))
@hypothesis.settings(deadline=None, max_examples=60, derandomize=True)
def test_any_rows_give_a_sound_mixture(family, data, prior, components):
    x, labels, n_classes = data
    mixture = classes.fit(Plan(family, components, prior, rank=3), x, labels, n_classes)
    assert_sound(mixture, x, labels, n_classes)


@pytest.mark.parametrize("family", FAMILIES)
@hypothesis.given(rows(), st.sampled_from(PRIORS))
@hypothesis.settings(deadline=None, max_examples=30, derandomize=True)
def test_em_without_labels_stays_sound(family, data, prior):
    x, labels, n_classes = data
    plan = Plan(family, 1, prior, floor=1e-4, rank=3)
    mixture = classes.fit(plan, x, labels, n_classes)
    floor = plan.floor * classes.average_variance(x)
    mixture = em.fit(mixture, em.Chunks(x), floor, prior, steps=5).mixture
    assert mixture.log_prob(x).isfinite().all()
    assert (torch.linalg.eigvalsh(dense(mixture).double()) > 0).all()


@pytest.mark.parametrize("family", FAMILIES)
@hypothesis.given(rows(), st.sampled_from(PRIORS))
@hypothesis.settings(deadline=None, max_examples=30, derandomize=True)
def test_held_out_scores_stay_finite(family, data, prior):
    x, labels, n_classes = data
    hypothesis.assume(len(x) > 1)
    held = Folds(x, labels, n_classes, torch.arange(len(x)) % 3, 3).cross_val_predict(Plan(family, 1, prior, rank=3))
    assert not held.class_log_prob.isnan().any()
    assert (held.class_log_prob.gather(1, held.label[:, None]) > -torch.inf).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("noise", [0.1, 0.01, 1e-4])
@pytest.mark.parametrize("dimension", [3, 64])
def test_rows_near_a_plane_keep_their_digits_in_float32(family, noise, dimension):
    """Scores by directions add and take off again what lies along them: large beside what lies across."""
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(2, dimension, generator=generator, dtype=torch.float64)
    x = torch.randn(2000, 2, generator=generator, dtype=torch.float64) @ plane + 3
    x = (x + noise * torch.randn(2000, dimension, generator=generator, dtype=torch.float64)).float()
    mixture = classes.fit(Plan(family, rank=2, steps=20), x, torch.zeros(2000, dtype=torch.long), 1).to(torch.float32)
    error = (mixture.log_prob(x).double() - mixture.to(torch.float64).log_prob(x.double())).abs()
    assert float(error.quantile(0.95)) < 1e-3
    assert float(error.max()) < (5e-3 if family == "lowrank" else 1e-3)

"""Sinkhorn against a naive loop in the linear domain, its marginals, its limits, and bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch.testing import assert_close

from mixtura.core.assignment import sinkhorn
from mixtura.errors import DataError, UsageError


def problem(n=12, k=3, seed=0, *batch):
    generator = torch.Generator().manual_seed(seed)
    score = torch.randn(*batch, n, k, generator=generator, dtype=torch.float64)
    row = torch.rand(*batch, n, generator=generator, dtype=torch.float64) + 0.1
    column = torch.rand(*batch, k, generator=generator, dtype=torch.float64) + 0.1
    return score, row / row.sum(-1, keepdim=True), column / column.sum(-1, keepdim=True)


def naive(score, row, column, regularization, steps=2000):
    kernel = np.exp(score.numpy() / regularization)
    u, v = np.ones(len(row)), np.ones(len(column))
    for _ in range(steps):
        v = column.numpy() / (kernel.T @ u)
        u = row.numpy() / (kernel @ v)
    return torch.from_numpy(u[:, None] * kernel * v)


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(2, 15),
    k=st.integers(1, 5),
    seed=st.integers(0, 1000),
    regularization=st.sampled_from([0.5, 1.0, 3.0]),
)
def test_plan_is_the_naive_loops(n, k, seed, regularization):
    score, row, column = problem(n, k, seed)
    found = sinkhorn(score, row, column, regularization, steps=2000, tolerance=1e-12)
    assert_close(found.plan, naive(score, row, column, regularization), rtol=0, atol=1e-8)
    assert_close(found.checked(1e-9).plan.sum(0), column, rtol=0, atol=1e-9)


def test_problems_in_a_batch_are_solved_alone():
    score, row, column = problem(8, 3, 1, 4)
    together = sinkhorn(score, row, column, steps=200, tolerance=0.0)
    alone = [sinkhorn(score[i], row[i], column[i], steps=200, tolerance=0.0).plan for i in range(4)]
    assert_close(together.plan, torch.stack(alone), rtol=0, atol=1e-13)
    assert together.error.shape == (4,)


def test_small_regularization_comes_near_the_best_matching():
    score, _, _ = problem(6, 6, 2)
    even = torch.full((6,), 1 / 6, dtype=torch.float64)
    plan = sinkhorn(score, even, even, 0.02, steps=5000).checked().plan
    assert plan.argmax(1).tolist() == linear_sum_assignment(score.numpy(), maximize=True)[1].tolist()


def test_log_densities_far_apart_neither_overflow_nor_unbalance():
    score, row, _ = problem(40, 2, 3)
    third = torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)
    found = sinkhorn(1e4 + 30 * score, row, third, steps=5000).checked(1e-4)
    assert found.plan.isfinite().all()
    assert_close(found.plan.sum(1), row, rtol=0, atol=1e-12)


def test_rows_without_mass_take_no_part():
    score, row, column = problem(10, 3, 4)
    kept = row.clone()
    kept[4:] = 0
    kept = kept / kept.sum()
    found = sinkhorn(score, kept, column, steps=500)
    assert (found.plan[4:] == 0).all()
    assert_close(found.plan[:4], sinkhorn(score[:4], kept[:4], column, steps=500).plan, rtol=0, atol=1e-12)


def test_a_problem_without_any_mass_stays_empty_and_finite():
    score, row, column = problem(5, 2, 5, 2)
    row[1], column[1] = 0, 0
    found = sinkhorn(score, row, column)
    assert found.plan.isfinite().all()
    assert (found.plan[1] == 0).all()
    assert (found.error <= 1e-3).all()


def test_the_error_is_a_share_of_the_components_own_target():
    """Off by a ten-thousandth of the whole, a component of a five-hundredth is off by a twentieth of itself."""
    score, row, _ = problem(50, 2, 7)
    small = torch.tensor([0.998, 0.002], dtype=torch.float64)
    found = sinkhorn(3 * score, row, small, 0.5, steps=2000, tolerance=0.01)
    assert_close(found.error, (found.plan.sum(0)[1] / 0.002 - 1).abs(), rtol=1e-9, atol=0)
    assert found.error <= 0.01


def test_marginals_that_are_not_met_are_told():
    score, row, column = problem(30, 3, 6)
    found = sinkhorn(50 * score, row, column, steps=1)
    with pytest.raises(DataError, match=r"After 1 steps a component's mass is off by .* of its target"):
        found.checked()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regularization": 0.0}, "Regularization 0.0"),
        ({"steps": 0}, "0 steps"),
        ({"row": torch.full((12,), 1.0, dtype=torch.float64)}, "totals that differ"),
        ({"row": torch.full((12,), -1.0, dtype=torch.float64)}, "negative"),
    ],
)
def test_bad_masses_are_refused(change, message):
    score, row, column = problem()
    with pytest.raises(UsageError, match=message):
        sinkhorn(**{"log_p": score, "row": row, "column": column} | change)

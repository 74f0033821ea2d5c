"""Assignment by chunk: a dense loop in logarithms is its oracle; its marginals, its limits, and what it refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp
from torch.testing import assert_close

from mixtura.core import balanced, newton
from mixtura.core.assignment import sinkhorn
from mixtura.core.balanced import Balance, Dense, assign, assign_batch
from mixtura.errors import DataError, NonFinite, UsageError

EXACT = Balance(tolerance=1e-9, steps=20_000)
STREAMED = replace(EXACT, kernel_bytes=0)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(balanced, "CHUNK_ENTRIES", 40)  # several chunks, the last of them smaller


def scores(n=30, k=4, seed=0, scale=1.0, dtype=torch.float64):
    return scale * torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def loop(score, column, regularization, strength):
    """Sinkhorn over the whole matrix, in float64 and logarithms."""
    score, power = score.numpy() / regularization, 1 / (1 + regularization / strength)
    u, v = np.full(len(score), -math.log(len(score))), np.zeros(score.shape[1])
    for _ in range(5000):
        u = -math.log(len(score)) - logsumexp(score + v, axis=1)
        v = power * (np.log(column) - logsumexp(score + u[:, None], axis=0))
    u = -math.log(len(score)) - logsumexp(score + v, axis=1)
    return torch.from_numpy(np.exp(score + u[:, None] + v))


@pytest.mark.parametrize("strength", [math.inf, 1.0, 0.02])
def test_plan_is_that_of_a_loop_in_logarithms(strength):
    """At the regularization 1/25."""
    score, column = scores(30, 5, 1), torch.tensor([1.0, 2, 3, 4, 2], dtype=torch.float64) / 12
    plan = loop(score, column.numpy(), 0.04, strength)
    for balance in (EXACT, STREAMED):
        found = assign(Dense(score), column * 7, replace(balance, strength=strength))
        assert_close(found.responsibilities(score) / 30, plan, rtol=0, atol=1e-9)
        assert_close(found.mass, plan.sum(0), rtol=0, atol=1e-9)
        assert (found.labels == plan.argmax(1)).all()
        if strength == math.inf:
            assert not found.objection(1e-6)
            assert_close(found.mass, column, rtol=0, atol=1e-9)


@pytest.mark.parametrize("strength", [math.inf, 0.5])
@pytest.mark.parametrize("kernel_bytes", [0, balanced.KERNEL_BYTES])
def test_nearly_hard_assignments_settle_in_few_steps(strength, kernel_bytes, monkeypatch):
    """Clusters of other sizes than the targets, and two columns that are almost the same: updates alone creep."""
    generator = torch.Generator().manual_seed(0)
    center = torch.nn.functional.normalize(torch.randn(6, 16, generator=generator, dtype=torch.float64), dim=1)
    center[5] = center[4] + 1e-3 * center[0]
    kind = torch.arange(400) % 21 % 6
    v = center[kind] + 0.15 * torch.randn(400, 16, generator=generator, dtype=torch.float64)
    score = torch.nn.functional.normalize(v, dim=1) @ torch.nn.functional.normalize(center, dim=1).T / 0.1
    balance = Balance(0.04, strength, steps=300, tolerance=1e-8, kernel_bytes=kernel_bytes)
    found = assign(Dense(score), None, balance)
    goal = torch.exp(-found.potential * 0.04 / strength) / 6
    assert not found.objection(1e-8)
    assert_close(found.responsibilities(score).mean(0), goal, rtol=1e-7, atol=0)
    monkeypatch.setattr(newton, "MAX_COMPONENTS", 0)
    if strength == math.inf and kernel_bytes:
        assert assign(Dense(score), None, replace(balance, steps=1000)).error > 0.01


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(1, 40),
    k=st.integers(1, 6),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.1, 1.0, 20.0]),
    shift=st.sampled_from([0.0, 500.0]),
)
def test_kernel_and_recomputed_scores_agree(n, k, seed, scale, shift):
    """Potentials grow far beyond what exponentials hold: the matrix absorbs them."""
    score = scores(n, k, seed, scale)
    score[:, 0] += shift
    loose = Balance(steps=60, tolerance=1e-7)
    kept, streamed = (assign(Dense(score), None, b) for b in (loose, replace(loose, kernel_bytes=0)))
    assert_close(kept.mass, streamed.mass, rtol=0, atol=1e-6)
    assert kept.labels.dtype == torch.int64
    if kept.error < 1e-7:
        assert_close(kept.mass, torch.full((k,), 1 / k, dtype=torch.float64), rtol=1e-6, atol=0)


def test_float32_meets_the_targets_too():
    score = scores(400, 20, 2, 3.0, torch.float32)
    for kernel_bytes in (0, balanced.KERNEL_BYTES):
        found = assign(Dense(score), None, Balance(0.5, tolerance=1e-5, steps=5000, kernel_bytes=kernel_bytes))
        assert not found.objection(1e-5)
        plan = found.responsibilities(score.double()) / 400
        assert_close(plan.sum(0), torch.full((20,), 0.05, dtype=torch.float64), rtol=0, atol=1e-6)


def test_it_is_the_dense_solution_of_small_problems():
    score, column = scores(12, 3, 3), torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    dense = sinkhorn(score, torch.full((12,), 1 / 12, dtype=torch.float64), column, 0.5, 2000, 1e-12)
    found = assign(Dense(score), column, replace(EXACT, regularization=0.5))
    assert_close(found.responsibilities(score) / 12, dense.plan, rtol=0, atol=1e-9)


def test_little_regularization_gives_the_best_balanced_assignment():
    score = scores(24, 4, 4)
    found = assign(Dense(score), None, Balance(0.005, steps=50_000))
    assert not found.objection()
    best = linear_sum_assignment(score.numpy().repeat(6, axis=1), maximize=True)[1] // 6
    assert torch.bincount(found.labels).tolist() == [6, 6, 6, 6]
    assert found.labels.tolist() == best.tolist()


def test_strength_runs_from_free_shares_to_equal_ones():
    score = scores(200, 3, 5)
    score[:, 0] += 2
    free, some, held = (
        assign(Dense(score), None, replace(EXACT, strength=s)).mass.amax() for s in (1e-6, 1.0, math.inf)
    )
    assert_close(free, (score / 0.04).softmax(1).mean(0).amax(), rtol=0, atol=1e-3)
    assert free > some > held
    assert held == pytest.approx(1 / 3, abs=1e-6)


def test_a_tolerance_is_a_share_of_the_components_own_target():
    column = torch.tensor([0.998, 0.002], dtype=torch.float64)
    found = assign(Dense(scores(1000, 2, 6)), column, Balance(tolerance=0.01, steps=5000))
    assert found.error == pytest.approx(float(abs(found.mass[1] / 0.002 - 1)))
    assert found.error <= 0.01
    said = assign(Dense(scores(1000, 2, 6)), column, Balance(steps=1)).objection(1e-4)
    assert said.startswith("After 1 steps of an assignment, a component's mass is off by ") and "above 0.01%" in said


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kernel_bytes", [0, balanced.KERNEL_BYTES])
def test_a_score_that_is_not_finite_is_told(bad, kernel_bytes):
    score = scores(30, 4)
    score[17, 2] = bad
    with pytest.raises(NonFinite, match="scores of sample 17 hold NaN or infinity"):
        assign(Dense(score), None, Balance(kernel_bytes=kernel_bytes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regularization": 0.0}, "Regularization 0.0"),
        ({"regularization": math.nan}, "Regularization nan"),
        ({"strength": 0.0}, "Strength 0.0"),
        ({"steps": 0}, "0 steps"),
    ],
)
def test_a_balance_out_of_range_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        Balance(**change)


def test_bad_targets_and_no_samples_are_refused():
    with pytest.raises(UsageError, match="not above 0"):
        assign(Dense(scores()), torch.tensor([1.0, 1, 0, 1]))
    with pytest.raises(UsageError, match="3 masses are given for 4 components"):
        assign(Dense(scores()), torch.ones(3))
    with pytest.raises(DataError, match="No sample"):
        assign(Dense(scores()[:0]))


def test_a_batch_is_balanced_over_its_queue():
    """The batch alone would be spread over all components; the queue shows that its samples are all of one kind."""
    score = scores(64, 4, 7, 0.05)
    score += 2 * torch.nn.functional.one_hot(torch.arange(64) % 4, 4)
    kind = torch.arange(64) % 4 == 2
    alone = assign_batch(score[kind][:8])
    beside = assign_batch(score[kind][:8], torch.cat([score[kind][8:], score[~kind]]))
    assert len(beside.labels) == len(alone.labels) == 8
    assert torch.bincount(alone.labels).max() <= 4
    assert (beside.labels == 2).all()
    assert assign(Dense(score), None, balanced.ONLINE).labels[kind].tolist()[:8] == beside.labels.tolist()

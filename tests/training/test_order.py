"""The order of training: every row once, the same rows for any number of processes, shares as asked for."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from mixtura.errors import UsageError
from mixtura.training.keyed_random import KeyedRandom, bits
from mixtura.training.order import Order, repeats


def whole(order, epoch=0, first=0, processes=1):
    """The rows of each step: the shares of all ranks, one after the other."""
    ranks = [list(order.batches(epoch, first, rank, processes)) for rank in range(processes)]
    return [np.concatenate(shares) for shares in zip(*ranks, strict=True)]


SIZES = (700, 200, 80, 20)
LABELS = np.repeat([3, 0, 7, 5], SIZES)
WEIGHTS = np.random.default_rng(0).exponential(size=1000)
ORDERS = {
    "plain": Order(1, 1003, 32),
    "weights": Order(1, 1000, 32, weights=WEIGHTS),
    "balance": Order(1, 1000, 7, labels=LABELS, balance=0.5),
    "both": Order(1, 1000, 32, labels=LABELS, balance=1.0, weights=WEIGHTS),
}


@pytest.mark.parametrize("count", [1, 31, 32, 33, 1003])
def test_every_row_occurs_once_in_an_epoch(count):
    order = Order(0, count, 32)
    batches = list(order.batches(4))
    assert len(batches) == order.steps
    assert [len(batch) for batch in batches[:-1]] == [32] * (order.steps - 1)
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(count))


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_the_number_of_processes_does_not_change_a_step(name, processes):
    order = ORDERS[name]
    for alone, together in zip(whole(order), whole(order, processes=processes), strict=True):
        np.testing.assert_array_equal(alone, together)
    sizes = [[len(rows) for rows in order.batches(0, 0, rank, processes)] for rank in range(processes)]
    assert np.ptp(sizes, axis=0).max() <= 1


@pytest.mark.parametrize("name", ORDERS)
def test_from_any_step_on_an_epoch_is_its_tail(name):
    order = ORDERS[name]
    every = list(order.batches(2, rank=1, processes=2))
    for first in range(order.steps + 1):
        found = list(replace(order).batches(2, first, 1, 2))
        assert len(found) == order.steps - first
        for rows, expected in zip(found, every[first:], strict=True):
            np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("name", ORDERS)
def test_epochs_and_seeds_differ(name):
    order = ORDERS[name]
    first = order.rows(0)
    for other in (order.rows(1), replace(order, seed=2).rows(0)):
        assert (first != other).mean() > 0.9
    np.testing.assert_array_equal(first, order.rows(0))


def test_another_process_gives_the_same_rows():
    code = "from mixtura.training.order import Order; print(Order(5, 50, 8).rows(3).tolist())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == Order(5, 50, 8).rows(3).tolist()


def test_an_order_is_uniform():
    """Each row comes to each place equally often: chi-square of 36 cells, 25 degrees of freedom, 4 standard errors."""
    table = np.zeros((6, 6))
    for epoch in range(3000):
        table[np.arange(6), Order(0, 6, 2).rows(epoch)] += 1
    assert abs(((table - 500) ** 2 / 500).sum() - 25) < 4 * np.sqrt(2 * 25)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_classes_have_their_shares(balance):
    order, epochs = Order(0, 1000, 100, labels=LABELS, balance=balance), 20
    drawn = np.concatenate([LABELS[order.rows(epoch)] for epoch in range(epochs)])
    power = np.array(SIZES) ** (1 - balance)
    for label, share in zip([3, 0, 7, 5], power / power.sum(), strict=True):
        found, error = (drawn == label).mean(), np.sqrt(share * (1 - share) / len(drawn))
        assert abs(found - share) < 4 * error


def test_rows_have_the_frequency_of_their_weight_and_repeat_only_where_it_demands():
    order, epochs = Order(3, 1000, 100, weights=WEIGHTS), 400
    expected = 1000 * WEIGHTS / WEIGHTS.sum()
    times = np.array([np.bincount(order.rows(epoch), minlength=1000) for epoch in range(epochs)])
    assert (times.sum(1) == 1000).all()
    assert (times >= np.floor(expected)).all() and (times <= np.ceil(expected)).all()
    fraction = expected % 1
    error = np.sqrt(fraction * (1 - fraction) / epochs)
    assert (np.abs(times.mean(0) - expected) <= 4.5 * error + 1e-9).all()  # 1,000 rows: 4.5 is 0.7% for all


def test_equal_weights_are_no_weights():
    """Every row once, though in another order."""
    for weights in (np.full(77, 0.3), np.full(77, 1e300)):
        np.testing.assert_array_equal(np.sort(Order(0, 77, 8, weights=weights).rows(1)), np.arange(77))


def test_a_row_of_weight_zero_never_comes():
    weights = np.array([0.0, 1, 0, 2, 0.5, 0])
    assert {*np.concatenate([Order(0, 6, 2, weights=weights).rows(epoch) for epoch in range(50)])} == {1, 3, 4}
    labels = np.array([0, 1, 0, 1, 1, 2])
    both = Order(0, 6, 2, labels=labels, balance=1.0, weights=weights)
    assert {*both.rows(0)} <= {1, 3, 4}


def test_repeats_count_what_came_before():
    rows = ORDERS["both"].rows(0)
    seen, expected = {}, []
    for row in rows.tolist():
        expected.append(seen.get(row, 0))
        seen[row] = expected[-1] + 1
    assert repeats(rows).tolist() == expected
    assert max(expected) > 2
    assert len(repeats(rows[:0])) == 0


def test_an_identity_says_what_matters():
    plain = Order(0, 4, 2)
    assert json.loads(json.dumps(plain.identity)) == plain.identity
    assert Order(0, 4, 2, labels=np.arange(4)).identity == plain.identity  # labels are not used
    labels = np.array([0, 0, 1, 1])
    others = [
        Order(1, 4, 2),
        Order(0, 4, 1),
        Order(0, 4, 2, labels=labels, balance=0.5),
        Order(0, 4, 2, labels=labels[::-1], balance=0.5),
        Order(0, 4, 2, weights=np.ones(4)),
        Order(0, 4, 2, weights=np.array([1.0, 1, 1, 2])),
    ]
    found = [json.dumps(order.identity) for order in (plain, *others)]
    assert len(set(found)) == 7
    assert Order(0, 4, 2, labels=labels.astype(np.int32), balance=0.5).identity == others[2].identity


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Order(-1, 4, 2), "seed of an order is -1"),
        (lambda: Order(0, 0, 2), "count of an order is 0"),
        (lambda: Order(0, 4, 0), "batch_size of an order is 0"),
        (lambda: Order(0, 4, 2, labels=np.zeros(4, int), balance=1.5), "1.5"),
        (lambda: Order(0, 4, 2, balance=0.5), "Give labels"),
        (lambda: Order(0, 4, 2, labels=np.zeros(3, int)), "3 labels for 4 rows"),
        (lambda: Order(0, 4, 2, weights=np.ones(5)), "5 weights for 4 rows"),
        (lambda: Order(0, 2, 2, weights=np.array([1, np.nan])), "finite"),
        (lambda: Order(0, 2, 2, weights=np.array([1.0, -1])), "at least 0"),
        (lambda: Order(0, 2, 2, weights=np.zeros(2)), "one above 0"),
        (lambda: Order(0, 4, 2).batches(-1), "no epoch -1"),
        (lambda: Order(0, 4, 2).batches(0, 3), "no step 3"),
        (lambda: Order(0, 4, 2).batches(0, 0, 2, 2), "no process 2 of 2"),
        (lambda: Order(0, 4, 2).batches(0, 0, 0, 3), "3 processes cannot share"),
    ],
)
def test_what_cannot_be_is_refused(make, said):
    with pytest.raises(UsageError, match=said):
        make()


def test_the_numbers_of_a_key():
    """Uniform in [0, 1), the same whatever NumPy's own generators do, and apart for keys that look alike."""
    random = KeyedRandom("a", 1)
    found = np.array([random.uniform() for _ in range(20_000)])
    assert found.min() >= 0 and found.max() < 1
    assert abs(found.mean() - 0.5) < 4 / np.sqrt(12 * len(found))
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 4 / np.sqrt(len(found))
    keys = [("a", 1), ("a1",), ("a", "1"), (1, "a"), ("a",), ("a", 11), ("a1", 1), ("a\udcff", 1)]
    assert len({int(bits(1, *key)[0]) for key in keys}) == len(keys)
    assert bits(3, "a", np.int64(1)).tolist() == bits(3, "a", 1).tolist()
    assert {KeyedRandom("b", i).below(3) for i in range(50)} == {0, 1, 2}

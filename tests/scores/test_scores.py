"""Every score equals its formula written out, survives its state, and follows the edits of a catalog."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mixtura.core.classes import FLOOR_SHARE, Plan, fit
from mixtura.core.covariance import Prior
from mixtura.core.cross_fitting import Folds
from mixtura.core.leave_one_out import cross_val_predict
from mixtura.core.left_out import background_peak, mixture_without_rows
from mixtura.core.moments import LabeledItems
from mixtura.names import find
from mixtura.scores import SCORES
from mixtura.scores.base import Edits, KnownRows
from mixtura.scores.knn import MAX_ROWS, NEIGHBORS, KNearest
from mixtura.scores.residual import Residual, subspace_width
from mixtura.testing.covariance_laws import clusters

X, LABELS = clusters(400, 5, 8)
NEW = clusters(60, 5, 8, seed=3)[0]
WEIGHT = 0.5 + torch.rand(400, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
SHRINKAGE = 0.1


def tied_mixture(x=X, labels=LABELS, weight=WEIGHT, n_classes=5):
    return fit(Plan("tied", prior=Prior(0.0, SHRINKAGE)), x, labels, n_classes, weight)


def known(x=X, labels=LABELS, weight=WEIGHT, n_classes=5):
    peak = background_peak(tied_mixture(x, labels, weight, n_classes))
    return KnownRows(LabeledItems(x, labels, weight), n_classes, Prior(0.0, SHRINKAGE), background_peak=peak)


def covariance(x, labels, weight):
    """Weighted means and the shrunk covariance within classes, by loops."""
    means = np.stack([np.average(x[labels == c], axis=0, weights=weight[labels == c]) for c in range(5)])
    within = sum(w * np.outer(row - means[c], row - means[c]) for row, c, w in zip(x, labels, weight, strict=True))
    within = within / weight.sum()
    shrunk = (1 - SHRINKAGE) * within + SHRINKAGE * np.trace(within) / x.shape[1] * np.eye(x.shape[1])
    return means, shrunk + FLOOR_SHARE * np.diag(within.diagonal())


def nearest_distance(x, labels, weight, new):
    means, shared = covariance(x, labels, weight)
    inverse = np.linalg.inv(shared)
    return np.array([min((row - mean) @ inverse @ (row - mean) for mean in means) for row in new])


def length_one(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def mahalanobis(x, labels, weight, new):
    return -nearest_distance(x, labels, weight, new)


def unit_mahalanobis(x, labels, weight, new):
    return -nearest_distance(length_one(x), labels, weight, length_one(new))


def relative_mahalanobis(x, labels, weight, new):
    means, shared = covariance(x, labels, weight)
    share = np.bincount(labels, weights=weight) / weight.sum()
    center = share @ means
    total = shared + (share[:, None] * (means - center)).T @ (means - center)
    inverse = np.linalg.inv(total)
    overall = np.array([(row - center) @ inverse @ (row - center) for row in new])
    return overall - nearest_distance(x, labels, weight, new)


def knn(x, labels, weight, new):
    bank = length_one(x)
    return np.array([-np.sort(np.linalg.norm(bank - row, axis=1))[NEIGHBORS - 1] for row in length_one(new)])


def vim_residual(x, labels, weight, new):
    center = np.average(x, axis=0, weights=weight)
    values, vectors = np.linalg.eigh(np.cov(x.T, aweights=weight))
    rest = vectors[:, np.argsort(values)[: x.shape[1] - subspace_width(len(x), x.shape[1])]]
    return -np.linalg.norm((new - center) @ rest, axis=1)


REFERENCES = {
    "mahalanobis": mahalanobis,
    "unit-mahalanobis": unit_mahalanobis,
    "relative-mahalanobis": relative_mahalanobis,
    "knn": knn,
    "vim-residual": vim_residual,
}


def values(score, x):
    """The score of rows beside the tied mixture of the known ones."""
    mixture = tied_mixture()
    return score(x, mixture.log_prob(x), mixture.background().log_prob(x))


@pytest.mark.parametrize("name", SCORES)
def test_a_score_equals_its_formula(name):
    got = values(find(SCORES, name).fit(known()), NEW).numpy()
    wanted = REFERENCES[name](X.numpy(), LABELS.numpy(), WEIGHT.numpy(), NEW.numpy())
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SCORES)
def test_a_fitted_mixture_gives_the_same_score_as_none(name):
    given = replace(known(), tied_mixture=tied_mixture())
    kind = find(SCORES, name)
    torch.testing.assert_close(values(kind.fit(given), NEW), values(kind.fit(known()), NEW), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SCORES)
def test_state_gives_the_same_bits_back(name):
    kind = find(SCORES, name)
    score = kind.fit(known(X.float()))
    again = kind.from_state({key: tensor.clone() for key, tensor in score.state().items()})
    nothing = torch.zeros(len(NEW))
    assert torch.equal(again(NEW.float(), nothing, nothing), score(NEW.float(), nothing, nothing))


@pytest.mark.parametrize("name", SCORES)
def test_a_row_far_away_is_less_familiar(name):
    score = find(SCORES, name).fit(known())
    far = values(score, -50 * X[:5] + 20 * torch.randn(5, 8, generator=torch.Generator().manual_seed(0)).double())
    assert float(far.max()) < float(values(score, X).quantile(0.05))


def edits(gone=(), added=None, removed=None, newcomers=()):
    none = LabeledItems(X[:0], LABELS[:0], WEIGHT[:0])
    mask = torch.tensor([c in gone for c in range(5)])
    return Edits(mask, added or none, removed or none, tuple(newcomers))


@pytest.mark.parametrize("name", ["mahalanobis", "unit-mahalanobis", "relative-mahalanobis", "knn"])
def test_items_that_come_and_go_leave_no_trace(name):
    score = find(SCORES, name).fit(known())
    extra = LabeledItems(NEW[:9], torch.arange(9) % 5, torch.ones(9, dtype=torch.float64))
    more = KnownRows(
        LabeledItems(torch.cat([X, extra.x]), torch.cat([LABELS, extra.labels]), torch.cat([WEIGHT, extra.weight])),
        5,
        Prior(0.0, SHRINKAGE),
    )
    there = find(SCORES, name).fit(more)
    back = there.follow(edits(removed=extra))
    first = "bank" if name == "knn" else "mean"
    torch.testing.assert_close(back.state()[first], score.state()[first], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        score.follow(edits(added=extra)).state()[first], there.state()[first], rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("count", [1, 3, 20])
def test_a_newcomer_becomes_familiar_and_a_removed_class_stranger(name, count):
    generator = torch.Generator().manual_seed(7)
    direction = 12 * torch.nn.functional.one_hot(torch.tensor(6), 8).double() - X.mean(0)
    shots, later = (direction + 0.5 * torch.randn(n, 8, generator=generator).double() for n in (count, 40))
    score = find(SCORES, name).fit(known())
    before, after = (values(one, later).mean() for one in (score, score.follow(edits(newcomers=[shots]))))
    assert float(after) > float(before)
    if name != "vim-residual":  # whose subspace stays
        own = X[LABELS == 2]
        assert float(values(score.follow(edits(gone=[2])), own).mean()) < float(values(score, own).mean())


def test_the_bank_is_bounded_even_and_independent_of_the_order():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(MAX_ROWS + 700, 4, generator=generator)
    labels = torch.where(torch.arange(len(x)) < 300, 0, 1 + torch.arange(len(x)) % 3)
    rows = LabeledItems(x, labels, torch.ones(len(x)))
    bank = KNearest.fit(KnownRows(rows, 4, Prior()))
    assert len(bank.bank) == MAX_ROWS
    assert int((bank.label == 0).sum()) == int((labels == 0).sum())  # none of a small class is lost
    order = torch.randperm(len(x), generator=generator)
    again = KNearest.fit(KnownRows(LabeledItems(x[order], labels[order], rows.weight), 4, Prior()))
    assert torch.equal(again.bank.sort(0).values, bank.bank.sort(0).values)


def test_newcomers_that_are_alike_add_one_direction():
    """The basis stays orthonormal, also with more newcomers than there is room for."""
    score = Residual.fit(known())
    one = NEW[:3]
    basis = score.follow(edits(newcomers=[one, one])).basis
    torch.testing.assert_close(basis, score.follow(edits(newcomers=[one])).basis, rtol=0, atol=1e-12)
    full = score.follow(edits(newcomers=[NEW[i : i + 1] for i in range(12)])).basis
    assert full.shape == (8, 8)
    torch.testing.assert_close(full.T @ full, torch.eye(8, dtype=full.dtype), rtol=0, atol=1e-9)


def test_photos_that_come_to_a_small_class_count_as_much_as_those_that_were_there():
    """A class of one photo has five copies of it; with a second photo each has three, as after a refit."""
    first, second, both = (
        LabeledItems(NEW[rows], torch.full((len(NEW[rows]),), 2), torch.ones(len(NEW[rows]), dtype=torch.float64))
        for rows in (slice(0, 1), slice(1, 2), slice(0, 2))
    )
    grown = KNearest.fit(KnownRows(first, 5, Prior())).follow(edits(added=second))
    refit = KNearest.fit(KnownRows(both, 5, Prior()))
    assert torch.equal(grown.bank, refit.bank)
    assert torch.equal(grown.label, refit.label)


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("name", ["mahalanobis", "relative-mahalanobis"])
def test_rows_that_were_left_out_score_as_by_a_refit(name, settled):
    x, labels, weight = X[:40], LABELS[:40], WEIGHT[:40]
    plan = Plan("tied", prior=Prior(0.0, SHRINKAGE))
    folds = Folds(x, labels, 5, torch.zeros_like(labels), 1, weight)
    (held,) = cross_val_predict(replace(folds, n_folds=2), [plan], background=True, settled=settled)
    kind = find(SCORES, name)
    expected = []
    for row in held.row.tolist():
        gone = torch.arange(40) == row
        mixture = mixture_without_rows(folds, plan, gone)
        kept = LabeledItems(x[~gone], labels[~gone], weight[~gone])
        score = kind.fit(KnownRows(kept, 5, plan.prior, mixture, background_peak(mixture)))
        expected.append(float(score(x[gone], mixture.log_prob(x[gone]), mixture.background().log_prob(x[gone]))[0]))
    found = kind.left_out(held)
    if settled:  # nearer to the own class, as later items will be; some are nearer to the background as well
        change = found - torch.tensor(expected, dtype=torch.float64)
        assert float(change.mean()) > 0
        assert name != "mahalanobis" or bool((change >= -1e-9).all())
    else:
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-8, atol=1e-8)

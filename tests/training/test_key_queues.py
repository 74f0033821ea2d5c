"""Two views of each photo, queues of keys, and the contrast with them, against plain tensors."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from mixtura.datasets.synthetic import stripes
from mixtura.encoders.tiny import Tiny
from mixtura.objectives.contrast import KeyBank, Keys, info_nce, log_sum, seen_from
from mixtura.training.augment import Augmentation, View
from mixtura.training.classifier import other_view
from mixtura.training.loaders import Loader
from mixtura.training.order import Order
from mixtura.training.queues import Queues, queue_sizes

WIDTH, CLASSES, TEMPERATURE = 5, 3, 0.3


def keys(labels, rows=None, seed=0):
    labels = torch.as_tensor(labels)
    key = torch.randn(len(labels), WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows = torch.arange(len(labels)) if rows is None else torch.as_tensor(rows)
    return Keys(normalize(key, dim=1), labels, rows)


def put(queues, *steps):
    for step, made in enumerate(steps, 1):
        queues.push(made)
        queues.after_step(step)
    return queues


# Views


def test_a_second_view_is_another_one_and_the_first_stays():
    photos = stripes(classes=2, per_class=5, size=24)
    views, order, labels = (View("random_resized_crop", 1.0),), Order(0, 10, 4), np.arange(10) // 5
    one, two, again = (
        list(Loader(photos, Tiny(size=16), labels, augmentation=Augmentation(views, 0, count), workers=workers)
             .batches(order, 1))
        for count, workers in ((1, 0), (2, 0), (2, 2))
    )  # fmt: skip
    for single, pair, same in zip(one, two, again, strict=True):
        assert set(pair) - set(single) == {"other x"}
        assert all(torch.equal(single[name], pair[name]) for name in single)
        assert all(torch.equal(pair[name], same[name]) for name in pair)
        second = other_view(pair)
        assert set(second) == set(single) and not torch.equal(second["x"], pair["x"])
        assert torch.equal(second["row"], pair["row"])
    photo = Augmentation(views)
    image = photos.image(0)
    made = [photo(image, "a", epoch, repeat, number).tobytes() for epoch in (0, 1) for repeat, number in
            ((0, 0), (0, 1), (1, 0), (1, 1))]  # fmt: skip
    assert len(set(made)) == len(made)


def test_without_a_second_view_the_photo_is_its_own():
    batch = {"x": torch.ones(2, 1), "label": torch.zeros(2)}
    assert other_view(batch) == batch


# Queues


def test_each_class_keeps_its_last_keys_in_any_batches():
    labels = torch.randint(CLASSES, (60,), generator=torch.Generator().manual_seed(1))
    made = keys(labels)
    sizes = (4, 9, 100)
    for split in (1, 7, 60):
        parts = [Keys(*one) for one in zip(*(part.split(split) for part in vars(made).values()), strict=True)]
        queues = put(Queues(sizes, WIDTH), *parts)
        for c, size in enumerate(sizes):
            last = made.row[labels == c][-size:]
            held = queues.of_class(c)
            assert sorted(held.row.tolist()) == last.tolist()
            assert (held.label == c).all()
            torch.testing.assert_close(held.key, made.key[held.row].float())
        assert len(queues.all().row) == sum(len(queues.of_class(c).row) for c in range(CLASSES))


def test_one_queue_of_all_classes_keeps_the_last_keys():
    made = keys(torch.arange(20) % CLASSES)
    steps = [Keys(*(part[i : i + 3] for part in vars(made).values())) for i in range(0, 20, 3)]
    queues = put(Queues([8], WIDTH), *steps)
    assert sorted(queues.all().row.tolist()) == list(range(12, 20))
    assert sorted(queues.of_class(1).row.tolist()) == [row for row in range(12, 20) if row % CLASSES == 1]


def test_keys_of_a_step_are_met_after_it_and_clearing_forgets_them():
    queues = Queues([3, 3], WIDTH)
    queues.push(keys([0, 1, 1]))
    assert not len(queues.all().row)
    queues.after_step(1)
    assert len(queues.of_class(1).row) == 2
    queues.push(keys([0]))
    queues.clear()
    queues.after_step(2)
    assert not len(queues.all().row) and isinstance(queues, KeyBank)


def test_keys_have_unit_length_in_queues():
    queues = put(Queues([3], WIDTH), Keys(torch.full((2, WIDTH), 7.0), torch.zeros(2).long(), torch.arange(2)))
    torch.testing.assert_close(queues.all().key.norm(dim=1), torch.ones(2))


def test_no_queue_is_longer_than_its_class():
    assert queue_sizes(4, torch.tensor([0, 0, 1, 1, 1, 1, 1, 2]), 3) == (2, 4, 1)


# Contrast


def naive(v, row, label, bank, center):
    """All keys against all rows, one loss a row: what does not belong is masked."""
    held = bank.all()
    found = []
    for i in range(len(v)):
        middle = None if center is None else center[label[i]]
        a = seen_from(v[i : i + 1], middle)
        scores = (a @ seen_from(held.key.to(v), middle).T)[0] / TEMPERATURE
        others = scores[(held.label == label[i]) & (held.row != row[i])]
        found.append(torch.logsumexp(others, 0) if len(others) else None)
    return found


@pytest.mark.parametrize("angular", [True, False])
@pytest.mark.parametrize("sizes", [(5, 30, 2), (20,)], ids=["by class", "one"])
def test_the_search_of_a_queue_is_that_of_the_whole_tensor(angular, sizes):
    queues = put(Queues(sizes, WIDTH), keys([0] * 9 + [1] * 20, seed=1), keys([2, 1, 0], seed=2))
    queues.keys = Keys(normalize(queues.keys.key.double(), dim=1), queues.keys.label, queues.keys.row)
    mine = keys([1, 0, 2, 1, 0], rows=[3, 2, 40, 41, 42], seed=3)
    v = (2 * keys([0] * 5, seed=4).key).requires_grad_()
    centers = keys([0] * CLASSES, seed=5).key
    given = (centers, mine.label) if angular else None
    others = log_sum(v, mine.row, queues, TEMPERATURE, of=mine.label, centers=given)
    loss = info_nce(v, mine.key, others, TEMPERATURE, centers[mine.label] if angular else None)
    own = centers[mine.label] if angular else None
    near = (seen_from(v, own) * seen_from(mine.key, own)).sum(1) / TEMPERATURE
    for i, other in enumerate(naive(v, mine.row, mine.label, queues, centers if angular else None)):
        if other is None:
            assert loss[i] == 0
        else:
            expected = cross_entropy(torch.stack([near[i], other])[None], torch.zeros(1).long())
            torch.testing.assert_close(loss[i], expected)
    loss.sum().backward()
    assert v.grad is not None and v.grad.isfinite().all()
    assert torch.autograd.gradcheck(
        lambda v: log_sum(v, mine.row, queues, TEMPERATURE, of=mine.label, centers=given)[[0, 1, 3, 4]], v
    )


def test_a_queue_that_is_half_full_is_one_of_that_length():
    made, v = keys([0] * 6 + [1] * 4, seed=1), keys([0, 1, 0], seed=2)
    half, full = put(Queues((12, 8), WIDTH), made), put(Queues((6, 4), WIDTH), made)
    rows = torch.full((3,), 99)
    for of in (v.label, None):
        found = [log_sum(v.key.float(), rows, bank, TEMPERATURE, of=of) for bank in (half, full)]
        assert torch.equal(*found)


def test_no_key_of_the_photo_itself_is_another():
    made = keys([0] * 4)
    loss = log_sum(made.key, made.row, made, TEMPERATURE, of=made.label)
    score = (made.key @ made.key.T / TEMPERATURE).masked_fill(torch.eye(4, dtype=torch.bool), -torch.inf)
    torch.testing.assert_close(loss, score.logsumexp(1))
    alone = keys([0])
    v = alone.key.clone().requires_grad_()
    info_nce(v, alone.key, log_sum(v, alone.row, alone, TEMPERATURE), TEMPERATURE).sum().backward()
    assert v.grad is not None and not v.grad.any()


def test_a_class_without_photos_has_no_keys_and_stops_nothing():
    queues = put(Queues(queue_sizes(5, torch.tensor([0, 0, 2]), CLASSES), WIDTH), keys([0, 2]), keys([0, 2], seed=1))
    assert [len(queues.of_class(c).row) for c in range(CLASSES)] == [2, 0, 1]

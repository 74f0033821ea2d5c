"""Loading photos for training: the same bits for any number of threads, broken photos left out, no thread left."""

import io
import subprocess
import sys
import threading
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

from mixtura.datasets.items import Dataset, Item
from mixtura.datasets.synthetic import stripes
from mixtura.encoders.tiny import Tiny
from mixtura.errors import NoInput, UsageError
from mixtura.features.decode_ahead import THREAD_NAME, decode_ahead
from mixtura.training.augment import VIEWS, Augmentation, View
from mixtura.training.loaders import KEPT_PART, Loader
from mixtura.training.order import Order

COUNT, BROKEN = 41, 17
VIEWS_OF_ALL_KINDS = Augmentation(tuple(View(name, 0.5) for name in VIEWS), seed=1)


@pytest.fixture(scope="module")
def photos():
    """Stripes of three classes as JPEG files in memory, 80 x 60 pixels."""

    def jpeg(pixels):
        file = io.BytesIO()
        Image.fromarray(pixels).resize((80, 60)).save(file, "JPEG")
        return file.getvalue()

    items = stripes(classes=3, per_class=14, size=40).items[:COUNT]
    return Dataset("jpeg", tuple(Item(item.id, item.source, jpeg(item.payload), item.label) for item in items))


@pytest.fixture(scope="module")
def broken(photos):
    """The same, the photo of one row cut off."""
    items = list(photos.items)
    old = items[BROKEN]
    items[BROKEN] = Item(old.id, old.source, old.payload[:200], old.label)
    return Dataset("broken", tuple(items))


LABELS = np.arange(COUNT) // 14
ORDER = Order(0, COUNT, 8, weights=np.linspace(0.2, 1.6, COUNT) ** 3)  # some rows come three times


@dataclass
class Counted:
    """A data set that counts how often each photo is decoded."""

    dataset: Dataset

    def __post_init__(self):
        self.items, self.digest, self.decoded, self.drafts = self.dataset.items, self.dataset.digest, [], set()

    def image(self, index, *, draft=None):
        self.decoded.append(index)
        self.drafts.add(draft)
        return self.dataset.image(index, draft=draft)


class Reduced(Tiny):
    """An encoder that lets large photos be reduced."""

    def __init__(self, draft=40, size=16):
        super().__init__(size=size)
        self.draft = draft


def loader(dataset, encoder=None, **options):
    given = {"augmentation": VIEWS_OF_ALL_KINDS, "workers": 0} | options
    return Loader(dataset, encoder or Reduced(), LABELS, **given)


def epochs(loader, order=ORDER, count=2):
    return [batch for epoch in range(count) for batch in loader.batches(order, epoch)]


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys() == {"x", "label", "weight", "row"}
        for name in one:
            assert one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]), name


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("cache_bytes", [0, 50_000, 1 << 30])
@pytest.mark.parametrize("augmentation", [VIEWS_OF_ALL_KINDS, None], ids=["views", "plain"])
def test_threads_and_cache_change_no_bit(broken, workers, cache_bytes, augmentation):
    expected = loader(broken, augmentation=augmentation, cache_bytes=0)
    found = loader(broken, augmentation=augmentation, workers=workers, cache_bytes=cache_bytes)
    assert_equal(epochs(found), epochs(expected))
    assert found.problems == expected.problems


def test_a_batch_holds_the_rows_of_the_order(photos):
    weights = np.linspace(0, 1, COUNT)
    made = loader(photos, weights=weights)
    for batch, rows in zip(made.batches(ORDER, 3), ORDER.batches(3), strict=True):
        assert batch["row"].tolist() == rows.tolist()
        assert batch["label"].tolist() == LABELS[rows].tolist()
        torch.testing.assert_close(batch["weight"], torch.from_numpy(weights[rows]).float())
        assert batch["x"].shape == (len(rows), 3, 16, 16) and batch["x"].dtype == torch.uint8
    assert epochs(loader(photos), count=1)[0]["weight"].tolist() == [1.0] * 8


def test_without_augmentation_photos_are_prepared_as_for_encoding(photos):
    encoder = Reduced()
    for batch in loader(photos, encoder, augmentation=None).batches(ORDER, 0):
        for row, x in zip(batch["row"].tolist(), batch["x"], strict=True):
            assert torch.equal(x, encoder.prepare(photos.image(row, draft=encoder.draft)))


def test_with_augmentation_photos_are_views_prepared(photos):
    """The oracle: each view by hand; a row that comes again in an epoch has another view."""
    encoder, seen, differ = Tiny(size=16), {}, []
    for batch in loader(photos, encoder).batches(ORDER, 2):
        for row, x in zip(batch["row"].tolist(), batch["x"], strict=True):
            repeat = len(seen.setdefault(row, []))
            view = VIEWS_OF_ALL_KINDS(photos.image(row), photos.items[row].id, 2, repeat)
            assert torch.equal(x, encoder.prepare(view))
            differ += [not torch.equal(x, other) for other in seen[row]]
            seen[row].append(x)
    assert len(differ) > 10 and np.mean(differ) > 0.8


def test_an_epoch_goes_on_from_any_step(photos):
    every = list(loader(photos).batches(ORDER, 1))
    for first in (0, 1, ORDER.steps - 1, ORDER.steps):
        assert_equal(list(loader(photos, workers=2).batches(ORDER, 1, first)), every[first:])


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_rows_of_a_step(photos, processes):
    order = Order(0, COUNT, 8)  # the last batch has one row
    alone = list(loader(photos).batches(order, 0))
    ranks = [list(loader(photos).batches(order, 0, 0, rank, processes)) for rank in range(processes)]
    together = [{name: torch.cat([part[name] for part in parts]) for name in parts[0]} for parts in zip(*ranks)]  # noqa: B905
    assert_equal(together, alone)
    assert ranks[0][-1]["x"].shape == (0, 3, 16, 16)


def test_a_broken_photo_is_listed_once_and_left_out(photos, broken):
    order, made = Order(0, COUNT, 8), loader(broken, workers=2)
    for found, whole in zip(epochs(made, order), epochs(loader(photos), order), strict=True):
        stays = whole["row"] != BROKEN
        assert_equal([found], [{name: column[stays] for name, column in whole.items()}])
    (problem,) = made.problems
    assert (problem.id, problem.source) == (broken.items[BROKEN].id, broken.items[BROKEN].source)
    assert problem.reason in ("truncated", "unreadable") and problem.source in problem.message


def test_a_batch_without_a_photo_has_no_rows(broken):
    (batch,) = loader(broken).read([np.array([BROKEN])])
    assert batch["x"].shape == (0, 3, 16, 16) and batch["x"].dtype == torch.uint8
    assert [len(batch[name]) for name in ("row", "label", "weight")] == [0, 0, 0]


def test_photos_that_are_all_gone_are_an_error(photos):
    gone = Counted(photos)
    gone.image = lambda index, draft=None: (_ for _ in ()).throw(OSError(5, "Input/output error"))
    with pytest.raises(NoInput, match=r"None of the photos.*Input/output error"):
        for step, _ in enumerate(loader(gone, workers=2).batches(ORDER, 0), 1):
            assert step < ORDER.steps  # in place of the last batch: who counts the batches meets the error too
    assert not threads()
    assert len(list(loader(gone).batches(ORDER, 0, ORDER.steps - 1))) == 1  # the tail alone says nothing of the rest


def test_a_photo_that_fits_into_the_cache_is_decoded_once(photos):
    order = Order(0, COUNT, 8)
    kept, none, some = Counted(photos), Counted(photos), Counted(photos)
    epochs(loader(kept, workers=3), order, 3)
    assert sorted(kept.decoded) == list(range(COUNT))
    epochs(loader(none, cache_bytes=0), order, 3)
    assert len(none.decoded) == 3 * COUNT
    size = 3 * 40 * 30  # of a photo at the kept side
    epochs(loader(some, cache_bytes=10 * size + 1), order, 3)
    assert len(some.decoded) == 3 * COUNT - 2 * 10
    assert kept.drafts == {40}


def test_large_photos_are_kept_smaller_and_others_as_they_are(photos):
    """No view looks coarser for it: the side kept is well above the network's."""
    sizes = []

    class Seen(Augmentation):
        def __call__(self, photo, *key):
            sizes.append(photo.size)
            return photo

    for encoder in (Reduced(40), Reduced(1000), Tiny(size=16)):
        next(loader(photos, encoder, augmentation=Seen(())).batches(ORDER, 0))
    side = round(KEPT_PART * 40)
    assert set(sizes[:8]) == {(side * 80 // 60, side)} and set(sizes[8:]) == {(80, 60)}


@pytest.mark.parametrize("workers", [0, 3])
def test_an_iterator_closed_early_leaves_no_thread(photos, workers):
    batches = loader(photos, workers=workers).batches(ORDER, 0)
    next(batches)
    assert bool(threads()) == bool(workers)
    batches.close()
    assert not threads()
    list(loader(photos, workers=workers).batches(ORDER, 0))
    assert not threads()


def test_an_error_of_the_encoder_ends_the_run_and_the_threads(photos):
    encoder = Reduced()
    encoder.prepare = lambda image: 1 / 0
    with pytest.raises(ZeroDivisionError):
        list(loader(photos, encoder, workers=2).batches(ORDER, 0))
    assert not threads()


def test_decoding_ahead_is_bounded_and_in_order():
    started, work = [], iter(range(100))
    with decode_ahead(lambda number: started.append(number) or number, work, 3) as results:
        for expected in range(10):
            assert next(results) == expected
            assert len(started) <= expected + 1 + 3 + 2
    assert not threads()
    with decode_ahead(lambda number: started.append(number) or number, range(1000, 1100), 0) as results:
        assert next(results) == 1000
    assert max(started) == 1000  # without threads, nothing is decoded that was not asked for


NOTHING_MOVES = """
import random
import numpy as np
import torch
from mixtura.datasets.synthetic import stripes
from mixtura.encoders.tiny import Tiny
from mixtura.training.augment import VIEWS, Augmentation, View
from mixtura.training.loaders import Loader
from mixtura.training.order import Order

def states():
    return random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()

before = states()
views = Augmentation(tuple(View(name) for name in VIEWS))
loader = Loader(stripes(), Tiny(), np.arange(30) // 10, augmentation=views, workers=2)
assert sum(len(batch["row"]) for batch in loader.batches(Order(0, 30, 8, weights=np.arange(30.0)), 0)) == 30
assert states() == before
"""


def test_no_global_generator_is_moved():
    """In a process of its own: the type checks of these tests use one."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", NOTHING_MOVES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda data: Loader(data, Tiny(), LABELS[:-1]), f"40 labels for {COUNT} photos"),
        (lambda data: Loader(data, Tiny(), LABELS, weights=np.ones(3)), f"3 weights for {COUNT} photos"),
        (lambda data: Loader(data, Tiny(), LABELS).batches(Order(0, 40, 8), 0), "order is for 40 rows"),
        (lambda data: Loader(data, Tiny(), LABELS).batches(ORDER, 0, 99), "no step 99"),
    ],
)
def test_what_cannot_be_is_refused(photos, make, said):
    with pytest.raises(UsageError, match=said):
        make(photos)

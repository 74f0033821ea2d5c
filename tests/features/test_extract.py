"""Extraction: complete, resumable, and clear about what went wrong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mixtura import files
from mixtura.errors import CannotWrite, FingerprintMismatch, NonFinite, OutOfSpace
from mixtura.features import inputs
from mixtura.features.extract import extract
from mixtura.features.inputs import stacked
from mixtura.features.store import FeatureStore


def test_every_item_gets_its_own_vector(photos, means, store):
    data = photos(23)
    report = extract(means(), data, store, batch_size=5, workers=3, part_rows=8)
    assert (report.done, report.skipped, report.updated, report.problems) == (23, 0, 0, ())
    found = store.read()
    assert found.id == [item.id for item in data.items]
    np.testing.assert_allclose(found.embedding[:, :3], data.pixels.mean((1, 2)), rtol=1e-5)
    assert found.sha256 == [data.digest(i) for i in range(23)]
    assert len(store.part_paths()) == 3


@pytest.mark.parametrize(("batch_size", "workers", "part_rows"), [(1, 1, 1), (64, 8, 1024), (7, 0, 10)])
def test_settings_do_not_change_the_result(photos, means, store, batch_size, workers, part_rows):
    data = photos(20)
    extract(means(), data, store, batch_size=batch_size, workers=workers, part_rows=part_rows)
    np.testing.assert_allclose(store.read().embedding[:, :3], data.pixels.mean((1, 2)), rtol=1e-5)


def test_large_photos_are_encoded_a_few_at_a_time(photos, means, store, monkeypatch):
    """Memory bounds a batch, not its count alone; vectors and their order stay."""
    monkeypatch.setattr(inputs, "MAX_NUMBERS", 3 * 3 * 8 * 8)  # three photos
    data, encoder, sizes = photos(20), means(), []
    encode = encoder.encode
    encoder.encode = lambda batch: sizes.append(len(batch)) or encode(batch)
    extract(encoder, data, store, batch_size=32)
    np.testing.assert_allclose(store.read().embedding[:, :3], data.pixels.mean((1, 2)), rtol=1e-5)
    assert max(sizes) <= 3
    assert inputs.at_once(10**12, 32) == 1
    sizes.clear()
    prepared = [encoder.prepare(data.image(i, draft=16)) for i in range(8)]
    found = inputs.encoded(encoder, stacked(prepared))
    np.testing.assert_allclose(found[:, :3], data.pixels[:8].mean((1, 2)), rtol=1e-5)
    assert sizes == [3, 3, 2]


def test_photos_are_stacked_without_changing_how_they_lie():
    photos = [torch.randint(0, 256, (7, 5, 3), dtype=torch.uint8).permute(2, 0, 1) for _ in range(4)]
    [(places, batch)] = stacked(photos)
    assert places == [0, 1, 2, 3]
    assert torch.equal(batch, torch.stack(photos))
    assert batch.permute(0, 2, 3, 1).is_contiguous()
    clips = [torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0)) for _ in range(2)]
    assert stacked(clips)[0][1].is_contiguous()


def test_an_empty_data_set(photos, means, store):
    assert extract(means(), photos(0), store).done == 0
    assert store.part_paths() == []


def test_nothing_is_computed_twice(photos, means, store):
    data, encoder = photos(20), means()
    extract(encoder, data, store, part_rows=8)
    before = [path.read_bytes() for path in store.part_paths()]
    data.read.clear()
    report = extract(encoder, data, FeatureStore.open(store.path), part_rows=8)
    assert (report.done, report.skipped) == (0, 20)
    assert encoder.encoded == 20
    assert data.read == []
    assert [path.read_bytes() for path in store.part_paths()] == before


def test_new_items_are_added(photos, means, store):
    extract(means(), photos(10), store)
    encoder = means()
    report = extract(encoder, photos(10 + 5, seed=0), store)
    assert report.done == encoder.encoded == 5
    assert len(store.read()) == 15


def test_a_changed_photo_is_computed_again(photos, means, store):
    data = photos(10)
    extract(means(), data, store)
    data.pixels[4] = 7
    report = extract(means(), data, store)
    assert (report.done, report.skipped) == (1, 9)
    found = store.read()
    assert found.id == [item.id for item in data.items]
    np.testing.assert_array_equal(found.embedding[4, :3], [7, 7, 7])


def test_a_changed_label_is_written_and_not_computed(photos, means, store):
    data = photos(10)
    extract(means(), data, store)
    old = store.read().embedding
    data.change(3, label="new", weight=2.0)
    data.change(5, split="test")
    encoder = means()
    report = extract(encoder, data, store)
    assert (report.done, report.skipped, report.updated, encoder.encoded) == (0, 10, 2, 0)
    found = store.read()
    assert (found.label[3], found.weight[3], found.split[5]) == ("new", 2.0, "test")
    np.testing.assert_array_equal(found.embedding, old)
    assert extract(encoder, data, store).updated == 0


def test_unreadable_items_are_listed_and_skipped(photos, means, store, bad_image):
    broken = {3: bad_image, 7: PermissionError(13, "Permission denied")}
    report = extract(means(), photos(10, broken=broken), store, batch_size=4)
    assert report.done == 8
    assert [(p.id, p.source, p.reason) for p in report.problems] == [
        ("i3", "3.png", "truncated"),
        ("i7", "7.png", "unreadable"),
    ]
    assert "cut off" in report.problems[0].message
    assert "i3" not in store.read().id


def test_a_whole_batch_of_unreadable_items(photos, means, store, bad_image):
    report = extract(means(), photos(6, broken=dict.fromkeys(range(6), bad_image)), store, batch_size=2)
    assert (report.done, len(report.problems)) == (0, 6)
    assert store.part_paths() == []


def test_a_fault_in_the_program_is_not_a_bad_photo(photos, means, store):
    with pytest.raises(ZeroDivisionError):
        extract(means(), photos(10, broken={3: ZeroDivisionError()}), store, batch_size=2)


def test_progress_counts_up_to_the_end(photos, means, store, bad_image):
    seen = []
    extract(means(), photos(10, broken={2: bad_image}), store, batch_size=4, progress=seen.append)
    assert [(p.done, p.total) for p in seen] == [(4, 10), (8, 10), (10, 10)]
    assert all(p.rate > 0 and p.seconds > 0 and p.remaining >= 0 for p in seen)
    assert seen[-1].remaining == 0


def test_another_encoder(photos, means, store):
    other = means()
    other.identity = {"name": "other"}
    with pytest.raises(FingerprintMismatch, match=r"'means'.*'other'"):
        extract(other, photos(3), store)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_an_encoder_that_gives_nonsense(photos, means, store, poison):
    with pytest.raises(NonFinite, match="5 of 5 rows hold NaN or infinity: i0, i1, i2, i3, i4"):
        extract(means(poison), photos(5), store)
    assert store.part_paths() == []


def test_a_full_disk_keeps_the_parts_before(photos, means, store, monkeypatch):
    written = []

    def fill(path, data):
        written.append(path)
        if len(written) > 2:
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    data = photos(20)
    with monkeypatch.context() as patch:
        patch.setattr(files, "_write_through", fill)
        with pytest.raises(OutOfSpace):
            extract(means(), data, store, batch_size=4, part_rows=4)
    assert len(store.read()) == 8
    encoder = means()
    assert extract(encoder, data, store, batch_size=4).done == encoder.encoded == 12
    assert sorted(store.read().id) == sorted(item.id for item in data.items)


def test_a_second_extraction_into_the_same_store(photos, means, store):
    with FeatureStore.open(store.path).lock(), pytest.raises(CannotWrite, match="another process"):
        extract(means(), photos(3), store)


def test_signal_handlers_are_given_back(photos, means, store):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    extract(means(), photos(3), store)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from conftest import Means, Photos
from mixtura.features.extract import extract
from mixtura.features import inputs
from mixtura.features.inputs import stacked
from mixtura.features.store import FeatureStore
class Slow(Means):
    def encode(self, batch):
        time.sleep(0.02)
        return super().encode(batch)
data, store = Photos(4000), FeatureStore.open(Path(sys.argv[1]))
def say(progress):
    print(progress.done, flush=True)
try:
    extract(Slow(), data, store, batch_size=4, part_rows=40, progress=say)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""


def interrupted(store, number):
    """Start an extraction in another process, send ``number`` in the middle; exit code, output, seconds to the end."""
    arguments = [sys.executable, "-c", CHILD, str(store.path), str(Path(__file__).parent)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        while int(child.stdout.readline() or sys.exit(child.stderr.read())) < 100:
            pass
        start = time.perf_counter()
        child.send_signal(number)
        output, _ = child.communicate(timeout=30)
    finally:
        child.kill()
        child.wait()
    return child.returncode, output.split(), time.perf_counter() - start


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_commits_what_is_done(photos, means, store, number, code):
    returned, output, seconds = interrupted(store, number)
    assert returned == code
    assert seconds < 5
    done = len(store.read())
    assert done == max(int(line) for line in ["100", *output] if line.isdigit())
    assert not list(store.path.glob(f"{files.TEMPORARY_PREFIX}*"))
    assert_resumes(photos(4000), means(), store, done)


@pytest.mark.slow
def test_a_killed_extraction_resumes(photos, means, store):
    assert interrupted(store, signal.SIGKILL)[0] == -signal.SIGKILL
    done = len(store.read())
    assert done >= 80  # two full parts were committed before item 100
    assert done % 40 == 0
    assert_resumes(photos(4000), means(), store, done)


def assert_resumes(data, encoder, store, done):
    report = extract(encoder, data, store)
    assert (report.done, report.skipped) == (4000 - done, done)
    found = store.read()
    assert found.id == [item.id for item in data.items]
    np.testing.assert_allclose(found.embedding[:, :3], data.pixels.mean((1, 2)), rtol=1e-5)

"""Does extraction keep the encoder busy?  Its rate as a share of the encoder's bare forward rate.

    python benchmarks/extraction.py                            # about six minutes on 2 idle cores
    python benchmarks/extraction.py --only runtimes --photos 100   # less, on a busy machine

Photos: the demo's 28 x 28 pixel arrays, and JPEG files (quality 90) of 128 x 128, 500 x 375 and 4000 x 3000 pixels.
The bare rate is ``encode`` on the same photos, prepared in memory. Both run alternately in one process, and the medians
are compared; extraction includes reading, hashing, decoding, resizing and committing the Parquet parts to disk.
On a busy machine trust the ratio of processor time at one thread: extraction has more threads, so it gets a larger
share of the wall time, and two busy-waiting threads of the forward pass spend processor time on nothing.
Also: the forward rate of lite0 as published and as we run it, by batch size; and, as ``results/runtimes.json``,
PyTorch and the other runtimes that are installed: the forward time of one photo and of sixteen, and the extraction of
JPEGs of 500 x 375 pixels at 224 px beside the best bare loop that decodes and encodes, over numbers of threads and
batch sizes. Everything that is compared takes turns; ratios are those of one turn, and their medians are kept.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mixtura.datasets import demo
from mixtura.datasets.items import Dataset, Item
from mixtura.encoders import RUNTIMES
from mixtura.encoders.lite0 import Lite0, packaged_weights
from mixtura.encoders.runtime import installed, on_runtime
from mixtura.encoders.torchvision_repair import import_timm
from mixtura.features.extract import extract
from mixtura.features.inputs import stacked
from mixtura.features.store import FeatureStore
from mixtura.pipeline.pictures import Pictured, Pictures

ROUNDS, BATCH, WORKERS = 5, 64, 2
RESULTS = Path(__file__).parent / "results"
BARE_SETTINGS = ((1, 8), (1, 32), (2, 8), (2, 32))  # threads that decode, photos in a batch


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("forward", "runtimes"))
    parser.add_argument("--photos", type=int, default=1000, help="of the comparison of runtimes")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of the comparison of runtimes")
    given = parser.parse_args()
    if given.only != "runtimes":
        save("extraction", of_torch())
    if given.only != "forward":
        save("runtimes", of_runtimes(given.photos, given.rounds))


def save(name, found):
    machine = {"cores": os.cpu_count(), "torch": torch.__version__}
    machine |= {"python": platform.python_version(), "load": os.getloadavg()[0]}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": machine} | found, indent=2) + "\n")


def of_torch():
    cases = [("28 x 28 arrays", 96, arrays(512)), ("28 x 28 arrays", 128, arrays(256))]
    with tempfile.TemporaryDirectory() as folder:
        tiny = jpegs(Path(folder) / "tiny", 256, (128, 128))
        small = jpegs(Path(folder) / "small", 256, (500, 375))
        large = jpegs(Path(folder) / "large", 16, (4000, 3000))
        cases += [("JPEG 128 x 128", 96, tiny), ("JPEG 128 x 128", 128, tiny)]
        cases += [("JPEG 500 x 375", 96, small), ("JPEG 500 x 375", 128, small), ("JPEG 4000 x 3000", 128, large)]
        rows = [measure(*case, threads) for threads in sorted({1, os.cpu_count()}) for case in cases]
    torch.set_num_threads(os.cpu_count())
    forward = [forward_rates(size) for size in (96, 128)]
    return {"extraction": rows, "forward": forward}


def of_runtimes(count, rounds):
    torch.set_num_threads(os.cpu_count())
    found = {"forward_ms": [forward_times(size, rounds) for size in (128, 224)]}
    with tempfile.TemporaryDirectory() as folder:
        data = jpegs(Path(folder) / "small", count, (500, 375))
        found["extraction"] = beside_the_bare_loop(data, rounds)
    print(json.dumps(found["extraction"], indent=2))
    return found


def on_all_runtimes(size):
    """The encoder on each runtime that is installed, ready to compute."""
    encoders = {name: on_runtime(Lite0(size), name, "cpu") for name in ("torch", *filter(installed, RUNTIMES))}
    for name, encoder in encoders.items():
        assert name == "torch" or encoder.settle() == name
    return encoders


def forward_times(size, rounds):
    """Milliseconds a photo, of wall time and of processor time, and the difference from PyTorch."""
    encoders, row = on_all_runtimes(size), {"size": size}
    for batch in (1, 16):
        photos = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        expected = encoders["torch"].encode(photos)
        times = {name: [] for name in encoders}
        for _ in range(4 * rounds):
            for name, encoder in encoders.items():
                times[name].append(timed(batch, partial(encoder.encode, photos)))
        row[f"batch {batch}"] = {
            name: {
                "wall": round(1000 / statistics.median(wall for wall, _ in pairs), 2),
                "cpu": round(1000 / statistics.median(cpu for _, cpu in pairs), 2),
                "difference_of_spread": float(
                    (encoders[name].encode(photos) - expected).square().mean().sqrt() / expected.std()
                ),
            }
            for name, pairs in times.items()
        }
    print(row, flush=True)
    return row


def beside_the_bare_loop(data, rounds):
    """Extraction by each runtime, the best bare loop of the fastest one, and the ratios that are promised."""
    encoders = on_all_runtimes(224)
    fastest = "openvino" if "openvino" in encoders else "torch"
    runs = {f"extraction {name}": partial(into_a_store, encoder, data) for name, encoder in encoders.items()}
    runs |= {f"bare {pair}": partial(bare_loop, encoders[fastest], data, *pair) for pair in BARE_SETTINGS}
    rates = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            rates[name].append(timed(len(data), run))
    row = {"photos": len(data), "rounds": rounds, "fastest": fastest}
    for place, clock in enumerate(("wall", "cpu")):
        per_s = {name: [pair[place] for pair in pairs] for name, pairs in rates.items()}
        ours, torchs = per_s[f"extraction {fastest}"], per_s["extraction torch"]
        bare = [max(per_s[f"bare {pair}"][turn] for pair in BARE_SETTINGS) for turn in range(rounds)]
        row[clock] = {
            "per_s": {name: round(statistics.median(values), 1) for name, values in per_s.items()},
            "of_the_best_bare_rate": round(statistics.median(a / b for a, b in zip(ours, bare, strict=True)), 3),
            "times_torch": round(statistics.median(a / b for a, b in zip(ours, torchs, strict=True)), 3),
        }
    return row


def into_a_store(encoder, data):
    """The extraction of users: with small pictures beside the features."""
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore.create(Path(folder) / "store", encoder.identity, encoder.dimension)
        pictures = Pictures(store.path)
        extract(encoder, Pictured(data, pictures), store, batch_size=32, workers=os.cpu_count())
        pictures.flush(store.digests)


def bare_loop(encoder, data, threads, batch):
    """Decode in threads, encode in this one, keep nothing."""

    def decoded(start):
        places = range(start, min(start + batch, len(data)))
        return stacked([encoder.prepare(data.image(i, draft=encoder.draft)) for i in places])[0][1]

    with ThreadPoolExecutor(threads) as pool:
        for photos in pool.map(decoded, range(0, len(data), batch)):
            encoder.encode(photos)


def measure(name, size, data, threads):
    """Alternate bare encoding and extraction: medians, in photos a second of wall time and of processor time."""
    torch.set_num_threads(threads)
    encoder = Lite0(size)
    start = time.process_time()
    photos = [encoder.prepare(data.image(i, draft=encoder.draft)) for i in range(len(data))]
    read = (time.process_time() - start) / len(data)
    batches = torch.stack(photos).split(BATCH)
    bare, whole = [], []
    for _ in range(ROUNDS):
        bare.append(timed(len(data), lambda: [encoder.encode(batch) for batch in batches]))
        with tempfile.TemporaryDirectory() as folder:
            store = FeatureStore.create(Path(folder) / "store", encoder.identity, encoder.dimension)
            run = partial(extract, encoder, data, store, batch_size=BATCH, workers=WORKERS)
            whole.append(timed(len(data), run))
    row = {"photos": name, "size": size, "count": len(data), "threads": threads}
    for place, clock in enumerate(("wall", "cpu")):
        ratios = [ours[place] / theirs[place] for ours, theirs in zip(whole, bare, strict=True)]
        row[clock] = {
            "bare_per_s": round(statistics.median(pair[place] for pair in bare), 1),
            "extraction_per_s": round(statistics.median(pair[place] for pair in whole), 1),
            "ratio": round(statistics.median(ratios), 3),
            "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        }
    # Where every core computes already, reading hides behind nothing: no order of work can give a better ratio.
    forward = 1 / row["cpu"]["bare_per_s"]
    row |= {"read_cpu_ms": round(1000 * read, 3), "forward_cpu_ms": round(1000 * forward, 3)}
    row["best_possible_ratio"] = round(forward / (forward + read), 3)
    print(row, flush=True)
    return row


def timed(count, run):
    """Items a second of wall time and of processor time."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return count / (time.perf_counter() - wall), count / (time.process_time() - cpu)


def forward_rates(size):
    """Photos a second of the published network and of ours, by batch size; the greatest relative difference."""
    network = import_timm().create_model("tf_efficientnet_lite0", pretrained=False)
    tensors = torch.load(packaged_weights(), weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), tensors.values(), strict=True)))
    network.reset_classifier(0)
    network.eval()
    encoder = Lite0(size)
    photos = torch.randint(0, 256, (128, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    @torch.inference_mode()
    def published(batch):
        return network(batch / 127.5 - 1)

    rates = {"published": {}, "lite0": {}}
    for batch in (16, 32, 64, 128):
        for name, encode in (("published", published), ("lite0", encoder.encode)):
            rates[name][batch] = round(max(rate(encode, photos, batch) for _ in range(ROUNDS)), 1)
    expected = published(photos[:16])
    difference = ((encoder.encode(photos[:16]) - expected).abs().max() / expected.abs().max()).item()
    row = {"size": size, "per_s_by_batch": rates, "relative_difference": difference}
    print(row, flush=True)
    return row


def rate(encode, photos, batch):
    start = time.perf_counter()
    for chunk in photos.split(batch):
        encode(chunk)
    return len(photos) / (time.perf_counter() - start)


def arrays(count):
    data = demo.load()
    return data.subset(range(count))


def jpegs(folder, count, size):
    """Smooth random photos with some grain, as files."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    items = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        grain = rng.normal(0, 6, (size[1], size[0], 1))
        path = folder / f"{number}.jpg"
        Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)
        items.append(Item(id=path.name, source=path.name, payload=path, label="photo"))
    return Dataset("photos", tuple(items))


if __name__ == "__main__":
    main()

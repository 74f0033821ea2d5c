"""What do taps cost?  lite0 with and without them, one photo and sixteen at a time.

    python benchmarks/taps.py            # a minute on 2 idle cores

Both encode the same photos in turn, in one process and one thread. Reported are medians of the time of a call, and the
median and the quartiles of the ratios of neighboring calls; on a busy machine trust the ratio of processor time.
"""

import json
import os
import platform
import statistics
import time
from pathlib import Path

import torch

from mixtura.encoders.lite0 import Lite0

SIZE, BATCHES, ROUNDS = 224, (1, 16), 61
RESULT = Path(__file__).parent / "results" / "taps.json"


def main():
    torch.set_num_threads(1)
    plain, tapped = Lite0(SIZE), Lite0(SIZE, taps="auto")
    rows = [measure(plain, tapped, count) for count in BATCHES]
    machine = {"cores": os.cpu_count(), "torch": torch.__version__}
    machine |= {"python": platform.python_version(), "load": os.getloadavg()[0]}
    dimensions = {"plain": plain.dimension, "tapped": tapped.dimension}
    RESULT.write_text(
        json.dumps({"machine": machine, "size": SIZE, "dimensions": dimensions, "rows": rows}, indent=2) + "\n"
    )


def measure(plain, tapped, count):
    """Milliseconds of a call, and how many times as long one with taps takes."""
    photos = torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8)
    rounds = ROUNDS if count == 1 else ROUNDS // 3
    times = [(timed(plain, photos), timed(tapped, photos)) for _ in range(rounds)][1:]
    row = {"photos": count}
    for place, clock in enumerate(("wall", "cpu")):
        pairs = [(ours[place], theirs[place]) for ours, theirs in times]
        low, median, high = statistics.quantiles([theirs / ours for ours, theirs in pairs], n=4)
        row[clock] = {
            "plain_ms": round(1000 * statistics.median(ours for ours, _ in pairs), 2),
            "tapped_ms": round(1000 * statistics.median(theirs for _, theirs in pairs), 2),
            "ratio": round(median, 3),
            "ratio_quartiles": [round(low, 3), round(high, 3)],
        }
    print(row, flush=True)
    return row


def timed(encoder, photos):
    """Seconds of wall time and of processor time."""
    wall, cpu = time.perf_counter(), time.process_time()
    encoder.encode(photos)
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()

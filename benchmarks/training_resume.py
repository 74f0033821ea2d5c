"""Does a training that was stopped and run again end with the bits of one that was never stopped?

    python benchmarks/training_resume.py [--stops 20]          about five minutes of one core, if idle

``cnn`` at 32 px on made photos: three epochs of a few steps, with dropout and the default views, in every setting of
``SETTINGS``, each with 0 and with 2 threads that decode. A run is stopped once, by SIGKILL or SIGTERM: after the first
or the last step of an epoch, after a random step, or at a random moment, also while it reads, writes or fits. Then the
same run is started again. Compared are the SHA-256 of all tensors of the last checkpoint (network, head, optimizer,
averages, best weights), of the bundle and its encoder, and the losses of the epochs.

Each run is ``tasks.train.run`` in a child of a process that has imported everything and computed nothing; a few more
are the command itself. Writes benchmarks/results/training_resume.json, and exits with 1 if any bit differs.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import arguments, write
from PIL import Image
from safetensors.torch import load_file

from mixtura.encoders.torchvision_repair import import_timm, import_torchvision
from mixtura.recipe import resolve
from mixtura.records.training import TrainingProgress
from mixtura.tasks import train

SIDE, CLASSES, PHOTOS, BATCH, EPOCHS = 32, 3, 24, 8, 3
BASE = {
    "encoder.name": "cnn",
    "encoder.size": SIDE,
    "encoder.dropout": 0.2,
    "train.batch_size": BATCH,
    "train.epochs": EPOCHS,
    "train.learning_rate": 3e-3,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"train.optimizer": "sgd"},
    "adamw": {"train.optimizer": "adamw"},
    "averaged weights": {"train.ema": 0.9},
    "bf16": {"train.precision": "bf16"},
    "averaged online head, trained jointly": {"train.ema": 0.9, "train.head": "joint", "head.name": "online"},
    "plateau, balance, parts": {
        "train.schedule": {"name": "plateau", "step": 1},
        "train.balance": 0.5,
        "train.accumulate": 2,
        "train.optimizer": "adadelta",
    },
}
KILL, TERMINATE = signal.SIGKILL, signal.SIGTERM
COMMAND_EPOCHS = 30

Stop = tuple[signal.Signals, int | float]
"""A signal, and the step after which it comes, or the share of a whole run's time."""


def shoot(folder: Path) -> Path:
    """Photos of one color a class, under noise."""
    rng = np.random.default_rng(0)
    for c in range(CLASSES):
        (folder / f"c{c}").mkdir(parents=True, exist_ok=True)
        for number in range(PHOTOS):
            pixels = rng.normal(100 + 40 * np.eye(3)[c], 40, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"c{c}" / f"{number:02}.jpg")
    return folder


def digest(output: Path) -> str:
    """The hash of everything that a training has made."""
    checkpoints = output / "training" / "checkpoints"
    state = max(checkpoints.iterdir()) / "state.safetensors"
    found = hashlib.sha256()
    for path in (state, output / "model.safetensors", output / "encoder.safetensors"):
        for name, tensor in sorted(load_file(path).items()):
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    for line in (output / "training" / "metrics.jsonl").read_text().splitlines():
        epoch = json.loads(line)
        del epoch["seconds"]
        found.update(json.dumps(epoch, sort_keys=True).encode())
    return found.hexdigest()


def child(keys: Mapping[str, Any], stop: Stop | None = None, seconds: float = 0.0) -> int:
    """Train in a child process, perhaps with a stop; returns the signal that has ended it, or 0.

    Args:
        keys: of the recipe.
        stop: what stops it.
        seconds: of a whole run.
    """
    number, place = stop or (KILL, 0)
    pid = os.fork()
    if not pid:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

            def watch(progress: object) -> None:
                if isinstance(progress, TrainingProgress) and not progress.message and progress.done == place:
                    os.kill(os.getpid(), number)

            train.run(resolve(keys), progress=watch)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    if isinstance(place, float):
        time.sleep(place * seconds)
        os.kill(pid, number)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("A training has failed; see above.")
    return status & 0x7F


def stops(number: int, steps: int, rng: random.Random) -> list[Stop]:
    """So many stops in epochs of so many steps: the edges of epochs, then random steps and random moments in turns."""
    edges: list[Stop] = [(one, step) for one in (KILL, TERMINATE) for step in (1, steps, steps + 1, EPOCHS * steps)]
    further: list[Stop] = [
        (rng.choice((KILL, TERMINATE)), rng.uniform(0.1, 0.95) if place % 2 else rng.randint(1, EPOCHS * steps))
        for place in range(max(number - len(edges), 0))
    ]
    return [*edges, *further][:number]


def committed(output: Path) -> int:
    """The step of the newest checkpoint; -1 for none."""
    folder = output / "training" / "checkpoints"
    steps = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
    return max(steps, default=-1)


def measured(keys: dict[str, Any], work: Path, number: int, rng: random.Random) -> dict[str, Any]:
    """Whether the runs that were stopped end as the one that was not, and after which steps they went on."""
    whole = work / "whole"
    began = time.perf_counter()
    child(keys | {"output": whole})
    seconds, expected = time.perf_counter() - began, digest(whole)
    steps = json.loads((whole / "training" / "metrics.jsonl").read_text().splitlines()[0])["step"]
    ended, gone_on, differing = Counter[str](), Counter[int](), list[str]()
    for place, stop in enumerate(stops(number, steps, rng)):
        output = work / f"{place:02}"
        died = child(keys | {"output": output}, stop, seconds)
        ended[f"by {stop[0].name}" if died else "before it"] += 1
        gone_on[committed(output)] += 1
        child(keys | {"output": output})
        if digest(output) != expected:
            differing.append(f"{stop[0].name} at {stop[1]}")
        shutil.rmtree(output)
    record = {"sha256": expected, "steps of an epoch": steps, "runs": number, "equal": number - len(differing)}
    return record | {"ended": ended, "gone on after step": dict(sorted(gone_on.items())), "differing": differing}


def command(photos: Path, work: Path) -> list[dict[str, Any]]:
    """The same through the command, stopped as soon as an epoch has been committed."""

    def start(output: Path) -> subprocess.Popen[bytes]:
        keys = BASE | {"train.epochs": COMMAND_EPOCHS, "train.ema": 0.9, "extract.workers": 2}
        given = [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]
        line = [sys.executable, "-m", "mixtura", "train", str(photos), "-o", str(output), "-q", *given]
        return subprocess.Popen(line, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)

    def finish(output: Path) -> str:
        if status := start(output).wait():
            raise SystemExit(f"mixtura train has ended with {status}.")
        return digest(output)

    expected, found = finish(work / "command"), []
    for number in (KILL, TERMINATE):
        output = work / f"command-{number.name}"
        run = start(output)
        while committed(output) < 1 and run.poll() is None:
            time.sleep(0.02)
        run.send_signal(number)
        status, kept = run.wait(), committed(output)
        found.append(
            {"signal": number.name, "status": status, "goes on after step": kept, "equal": finish(output) == expected}
        )
    return found


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--stops", type=int, default=20, help="of each setting")
    given = parser.parse_args()
    torch.set_num_threads(1)
    import_torchvision()
    import_timm()
    work = given.work / "training-resume"
    shutil.rmtree(work, ignore_errors=True)
    photos, rng = shoot(work / "photos"), random.Random(0)
    settings, differing = {}, 0
    for name, keys in SETTINGS.items():
        both = {}
        for workers in (0, 2):
            every = BASE | keys | {"data.root": str(photos), "extract.workers": workers}
            made = both[f"{workers} threads"] = measured(every, work / f"{name}-{workers}", given.stops, rng)
            differing += len(made["differing"])
            print(f"{name}, {workers} threads: {made['equal']} of {made['runs']} equal", flush=True)
        same = len({made["sha256"] for made in both.values()}) == 1
        differing += not same
        settings[name] = {"equal for 0 and 2 threads": same} | both
    commands = command(photos, work)
    differing += sum(not one["equal"] for one in commands)
    print(commands)
    write("training_resume", {"differing": differing, "settings": settings, "command": commands})
    sys.exit(int(differing > 0))


if __name__ == "__main__":
    main()

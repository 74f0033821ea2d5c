"""Training by two processes of which one is killed: how often it ends with the network of an undisturbed run.

``torchrun --max-restarts 3`` starts both again, and they go on from the last commit. Each of ten runs kills another
process before a random step, early or late in an epoch. It takes about ten minutes on two processors, and writes
``results/training_restarts.json``.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import write
from PIL import Image
from safetensors.numpy import load_file

SIDE, CLASSES, EACH, EPOCHS, BATCH = 16, 3, 24, 3, 8
RUNS, SEED, ROUNDING = 10, 0, 1e-6

PROGRAM = """
import os, signal, sys
from pathlib import Path
from mixtura.cli.app import run
from mixtura.training.trainer import _Run

mark, victim, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
step = _Run._step

def killed(self, batch, rows):
    if self.course.step == last and os.environ["RANK"] == victim and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, batch, rows)

_Run._step = killed
sys.exit(run(sys.argv[4:]))
"""


def shoot(folder: Path) -> None:
    """Write noisy photos of one color a class."""
    rng = np.random.default_rng(SEED)
    for c in range(CLASSES):
        (folder / f"c{c}").mkdir(parents=True)
        for number in range(EACH):
            pixels = np.full((SIDE, SIDE, 3), 60 + 60 * c) + rng.normal(0, 60, (SIDE, SIDE, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"c{c}" / f"{number:03}.png")


def train(folder: Path, name: str, victim: int, step: int) -> subprocess.CompletedProcess[str]:
    """Train with two processes, one of which is killed before a step, counted from 0."""
    settings = {
        "encoder.name": "tiny", "encoder.size": SIDE, "extract.workers": 0, "train.trainable": "all",
        "train.epochs": EPOCHS, "train.batch_size": BATCH, "train.optimizer": "adamw", "train.ema": 0.9,
        "fit.min_val_fraction": 0.3,
    }  # fmt: skip
    (folder / "killed.py").write_text(PROGRAM)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "3"]
    kill = [str(folder / "killed.py"), str(folder / f"{name}-killed"), str(victim), str(step)]
    line = ["train", str(folder / "photos"), "-o", str(folder / name), "--fresh", "-q"]
    pairs = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    own = {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    command = [sys.executable, *launch, *kill, *line, *pairs]
    return subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)


def last_weights(output: Path) -> tuple[int, dict[str, np.ndarray]]:
    """The step and the tensors of the newest checkpoint."""
    newest = max((output / "training" / "checkpoints").iterdir(), key=lambda path: path.name)
    return int(newest.name), load_file(newest / "state.safetensors")


def compared(folder: Path, name: str) -> dict[str, Any]:
    """How far a run has ended from the undisturbed one."""
    (step, whole), (ended, found) = last_weights(folder / "whole"), last_weights(folder / name)
    far = max(float(np.abs(found[key].astype(float) - tensor).max()) for key, tensor in whole.items() if tensor.size)
    equal = all(found[key].tobytes() == tensor.tobytes() for key, tensor in whole.items())
    return {"same_step": step == ended, "largest_difference": far, "equal_bits": equal}


def main() -> None:
    """Train once undisturbed, then ten times with a kill."""
    choose, runs = random.Random(SEED), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shoot(folder / "photos")
        whole = train(folder, "whole", 0, -1)
        assert whole.returncode == 0, whole.stderr
        steps = last_weights(folder / "whole")[0]
        for number in range(RUNS):
            victim, step, name = number % 2, choose.randrange(steps), f"run{number}"
            done = train(folder, name, victim, step)
            killed = (folder / f"{name}-killed").exists()
            ended = done.returncode == 0 and killed
            runs.append(
                {"killed": victim, "before_step": step + 1, "ended": ended}
                | (compared(folder, name) if ended else {"says": done.stderr[-1000:]})
            )
            keep(steps, runs)


def keep(steps: int, runs: list[dict[str, Any]]) -> None:
    """Write what the runs so far have come to."""
    alike = [run for run in runs if run["ended"] and run["same_step"] and run["largest_difference"] <= ROUNDING]
    counts = {"runs": len(runs), "ended_alike": len(alike), "equal_bits": sum(run["equal_bits"] for run in alike)}
    print(json.dumps(counts | {"last": runs[-1]}), flush=True)
    write("training_restarts", counts | {"steps": steps, "each": runs})


if __name__ == "__main__":
    main()

"""Checkpoints of a training run: a folder for each, complete or absent, hashed, without pickle; the last two are kept.

::

    checkpoints/00000120/          the number of steps done
      state.safetensors            every tensor
      state.json                   everything else, with the size and SHA-256 of the tensors' file
      COMMIT                       the SHA-256 of state.json, written last

The folder is staged under another name and renamed when all three are on disk.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mixtura import files
from mixtura.errors import CheckpointError, NoInput
from mixtura.files import is_folder_at, is_there

LAYOUT = 1
KEPT = 2
"""Generations that are kept: the newest, and the one to fall back on."""

TENSORS_FILE, STATE_FILE, COMMIT_FILE = "state.safetensors", "state.json", "COMMIT"

Fact = str | int | float | bool | None


@dataclass(frozen=True)
class Facts:
    """What a run depends on: ``same`` must be equal when it goes on, ``noted`` may differ, which is then said.

    Values are plain numbers and text; hash what is long, such as the list of the data's files.
    """

    same: Mapping[str, Fact] = field(default_factory=dict)
    noted: Mapping[str, Fact] = field(default_factory=dict)

    def joined(self, other: "Facts") -> "Facts":
        """These facts and others."""
        return Facts({**self.same, **other.same}, {**self.noted, **other.noted})


@dataclass(frozen=True)
class Checkpoint:
    """A run after ``step`` steps: its tensors, its plain values (JSON) and the facts that it depends on."""

    step: int
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]
    facts: Facts


class _State(BaseModel):
    """The exact contents of state.json."""

    model_config = ConfigDict(extra="forbid", strict=True)

    layout: int
    step: int
    size: int
    sha256: str
    same: dict[str, Fact]
    noted: dict[str, Fact]
    values: dict[str, Any]


class _Damaged(Exception):
    """Why a checkpoint is not whole."""


class Checkpoints:
    """The checkpoints of one run; whoever writes holds the lock of the run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def commit(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then delete all but the last two; does nothing if this step has one.

        Raises:
            OutOfSpace: the disk is full; the checkpoints before are whole.
            CannotWrite: the folder cannot be written.
        """
        path = self.folder / f"{checkpoint.step:08d}"
        if is_there(path):
            return
        files.make_folder(self.folder)
        # A copy of each, since safetensors takes no tensors that share memory.
        data = save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in checkpoint.tensors.items()})
        state = _State(
            layout=LAYOUT,
            step=checkpoint.step,
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            same=dict(checkpoint.facts.same),
            noted=dict(checkpoint.facts.noted),
            values=dict(checkpoint.values),
        )
        text = (json.dumps(state.model_dump(), indent=1) + "\n").encode()
        commit = hashlib.sha256(text).hexdigest().encode()
        files.place(files.stage(self.folder, {TENSORS_FILE: data, STATE_FILE: text, COMMIT_FILE: commit}), path)
        for old in self._generations()[:-KEPT]:
            _remove(old)

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint, if any, and what to say of newer ones that are damaged; changes nothing.

        Raises:
            CheckpointError: every checkpoint is damaged, or a newer mixtura has written one.
            NoInput: the disk does not give a checkpoint that is there; it may be whole, so no earlier one is used.
        """
        notes: list[str] = []
        for path in reversed(self._generations()):
            try:
                return _read(path), [f"{' '.join(notes)} An earlier one is used."] if notes else []
            except _Damaged as damage:
                notes.append(f"The checkpoint {path} is damaged ({damage}).")
        if notes:
            raise CheckpointError(
                f"{' '.join(notes)} So no checkpoint in {self.folder} is whole. Start again with --fresh, which moves "
                "this run aside."
            )
        return None, notes

    def collect(self, step: int | None) -> None:
        """Delete what a killed writer has left, and what is newer than the checkpoint that is used."""
        if is_folder_at(self.folder):
            files.collect_staged(self.folder)
            for path in self._generations():
                if step is None or int(path.name) > step:
                    _remove(path)

    def _generations(self) -> list[Path]:
        """The folders of checkpoints, by step."""
        found = self.folder.iterdir() if is_folder_at(self.folder) else ()
        return sorted((path for path in found if path.name.isdecimal()), key=lambda path: int(path.name))


def check_same_run(stored: Facts, now: Facts) -> list[str]:
    """Sentences about facts that differ from those of an earlier run but need not be equal.

    Raises:
        CheckpointError: facts differ that must be equal.
    """
    if differing := _differences(stored.same, now.same):
        raise CheckpointError(
            f"The run that is there cannot go on: {differing}. Run it with what it began with, or start again with "
            "--fresh, which moves it aside."
        )
    if differing := _differences(stored.noted, now.noted):
        return [f"Training goes on with the same rows in the same order, but {differing}: the last bits may differ."]
    return []


def set_aside(folder: Path) -> Path | None:
    """Move an earlier run aside and return its new place, or ``None`` if there is none.

    Raises:
        CannotWrite: it cannot be moved, or another process is writing it.
    """
    if not is_folder_at(folder):
        return None
    with files.only_writer(folder):
        free = next(path for path in (folder.with_name(f"{folder.name}-{n}") for n in count(1)) if not is_there(path))
        with files.explained(free):
            return folder.rename(free)


def _read(path: Path) -> Checkpoint:
    """A checkpoint, its hashes checked."""
    try:
        text = (path / STATE_FILE).read_bytes()
        if (path / COMMIT_FILE).read_bytes() != hashlib.sha256(text).hexdigest().encode():
            raise _Damaged(f"{STATE_FILE} has been altered")
        layout = json.loads(text)["layout"]
        if layout != LAYOUT:
            raise CheckpointError(
                f"{path} has layout {layout!r}, and this mixtura reads {LAYOUT}. Use the version that has written it, "
                "or start again with --fresh."
            )
        state = _State.model_validate_json(text)
        data = (path / TENSORS_FILE).read_bytes()
        if len(data) != state.size or hashlib.sha256(data).hexdigest() != state.sha256:
            raise _Damaged(f"{TENSORS_FILE} has been altered")
        return Checkpoint(state.step, load(data), state.values, Facts(state.same, state.noted))
    except CheckpointError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _Damaged(f"{Path(error.filename).name} is missing") from error
    except OSError as error:
        raise cannot_read(path, error) from error
    except (ValidationError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _Damaged(" ".join(str(error).split())[:200]) from error


def cannot_read(path: Path, error: OSError) -> NoInput:
    """Return the error to raise for a file of a run that is there and cannot be read, perhaps only for now."""
    return NoInput(
        f"Cannot read {path}: {error.strerror or error}. Nothing has been changed. Check the disk and the permissions, "
        "then run the same command again."
    )


def _remove(path: Path) -> None:
    """Delete a checkpoint, its marker first."""
    (path / COMMIT_FILE).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _differences(stored: Mapping[str, Fact], now: Mapping[str, Fact]) -> str:
    keys = [key for key in sorted({*stored, *now}) if stored.get(key) != now.get(key)]
    return "; ".join(f"{key} was {stored.get(key)!r} and is {now.get(key)!r} now" for key in keys)

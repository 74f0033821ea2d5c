"""Figures of a training for TensorBoard and MLflow: each once, also after a stop; a server that is away ends nothing.

The packages are an extra, so modules with the signatures of tensorboard 2.21 and mlflow 3.17 stand in for them.
"""

import os
import sys
import types
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from mixtura.errors import MissingExtra
from mixtura.recipe import resolve
from mixtura.records.training import Gain, NetworkTraining, TrainingEpoch
from mixtura.records.training_course import TrainingCourse, TriedPart
from mixtura.tasks import train
from mixtura.tasks.tracking import Tracking, figures

URI = "http://tracking.test"


def course(count, result=None):
    epochs = [
        TrainingEpoch(i, i, None if i == 0 else 1.0 / i, 1e-3, {}, {"raw": {"loss": 0.5, "accuracy": 0.75}}, 1.0)
        for i in range(count)
    ]
    return TrainingCourse(
        {"train": {"epochs": 3, "schedule": {"name": "cosine"}}}, (TriedPart("all", tuple(epochs)),), result=result
    )


class Client:
    """A server that outlives clients."""

    calls: ClassVar = []
    away = False

    def __init__(self, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        self.calls.append(("client", tracking_uri))

    def get_experiment_by_name(self, name: str):
        if self.away:
            raise ConnectionError("no route to the server")
        return

    def create_experiment(self, name: str, artifact_location=None, tags=None) -> str:
        return "7"

    def create_run(self, experiment_id: str, start_time=None, tags=None, run_name=None):
        self.calls.append(("run", run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def log_param(self, run_id: str, key: str, value, synchronous=None):
        self.calls.append(("param", key, value))

    def log_metric(self, run_id: str, key: str, value: float, timestamp=None, step=None, synchronous=None):
        self.calls.append(("metric", key, step))

    def set_terminated(self, run_id: str, status=None, end_time=None) -> None:
        self.calls.append(("end", run_id))


class Writer:
    """Event files."""

    made: ClassVar = []

    def __init__(self, log_dir=None, comment="", purge_step=None, max_queue=10, flush_secs=120, filename_suffix=""):
        self.folder, self.purge, self.scalars, self.open = log_dir, purge_step, [], True
        self.made.append(self)

    def add_text(self, tag, text_string, global_step=None, walltime=None):
        self.text = text_string

    def add_scalar(self, tag, scalar_value, global_step=None, walltime=None, new_style=False, double_precision=False):
        self.scalars.append((tag, scalar_value, global_step))

    def flush(self):
        assert self.open

    def close(self):
        self.open = False


@pytest.fixture
def packages(monkeypatch):
    for name, content in (
        ("mlflow", {"MlflowClient": Client}),
        ("tensorboard", {}),
        ("torch.utils.tensorboard", {"SummaryWriter": Writer}),
    ):
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(Client, "calls", [])
    monkeypatch.setattr(Writer, "made", [])


def tracking(folder, warned=None, **log):
    recipe = resolve({f"train.log.{key}": value for key, value in log.items()} | {"train.epochs": 3})
    return Tracking(recipe, folder / "training", [].append if warned is None else warned.append)


def test_every_figure_is_passed_on_once_also_when_a_run_goes_on(packages, tmp_path):
    first = tracking(tmp_path, mlflow=URI, tensorboard=True, name="mine")
    first(course(1))
    first(course(2))
    first(course(2))
    again = tracking(tmp_path, mlflow=URI, tensorboard=True, name="mine")
    again(course(3, NetworkTraining("done", True, gains=(Gain("accuracy", 0.5, 0.75),))))
    metrics = [call for call in Client.calls if call[0] == "metric"]
    assert len(metrics) == len(set(metrics))
    assert {call[1:] for call in metrics} == {
        (f"all/{n}", e.number) for e in course(3).parts[0].epochs for n in figures(e)
    }
    assert [call for call in Client.calls if call[0] in ("run", "end")] == [("run", "mine"), ("end", "r1")]
    assert ("param", "train.schedule.name", "cosine") in Client.calls
    assert [one.purge for one in Writer.made] == [0, 0]  # later files supersede the earlier
    assert [one[0::2] for one in Writer.made[1].scalars] == [call[1:] for call in metrics]
    assert not Writer.made[1].open
    assert Writer.made[0].folder == str(tmp_path / "training" / "tensorboard")


def test_a_server_that_is_away_is_told_once(packages, tmp_path, monkeypatch):
    monkeypatch.setattr(Client, "away", True)
    warned = []
    track = tracking(tmp_path, warned, mlflow=URI)
    for count in (1, 2, 3):
        track(course(count))
    assert len(warned) == 1
    assert "no route to the server" in warned[0]


def test_a_server_that_is_away_is_asked_twice_unless_the_environment_says_otherwise(packages, tmp_path, monkeypatch):
    """MLflow's own is to ask seven times, for ten minutes, before the first photo is trained on."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URI)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")  # so that it is as before after the test
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    Tracking(resolve({}), tmp_path / "training", print)(course(1))
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1" and os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"


def test_the_variable_is_read_where_mlflow_is_installed(packages, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URI)
    tracking(tmp_path)(course(1))
    assert Client.calls[0] == ("client", URI)


@pytest.mark.parametrize("log", [{"mlflow": URI}, {"tensorboard": True}, {"tensorboard": "runs"}])
def test_a_package_that_is_absent_is_named_before_any_photo_is_read(tmp_path, monkeypatch, log):
    monkeypatch.setattr("mixtura.tasks.tracking._installed", lambda package: False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URI)
    keys = {f"train.log.{key}": value for key, value in log.items()}
    with pytest.raises(MissingExtra, match=r"mixtura\[tracking\]"):
        train.run(resolve({"data.root": tmp_path / "none", "output": tmp_path / "o"} | keys))
    assert not (tmp_path / "o").exists()
    tracking(tmp_path)(course(1))


def test_a_training_ends_although_the_server_is_away(packages, tmp_path, monkeypatch):
    monkeypatch.setattr(Client, "away", True)
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.normal(level, 30, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    keys = {"encoder.name": "cnn", "encoder.size": 16, "encoder.filters": 4, "extract.workers": 0, "train.epochs": 2}
    said = []
    recipe = resolve({"data.root": tmp_path / "photos", "output": tmp_path / "o", "train.log.mlflow": URI} | keys)
    made = train.run(recipe, progress=lambda one: said.append(getattr(one, "message", "")))
    assert made.training.epochs == 2
    assert [text for text in said if "MLflow" in text] == [
        "MLflow gets no more figures of this training (no route to the server). Training goes on."
    ]

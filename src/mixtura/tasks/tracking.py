"""TensorBoard and MLflow: the figures of each epoch go there too, if the recipe or the environment says so."""

import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mixtura import files
from mixtura.errors import MissingExtra
from mixtura.recipe import Recipe
from mixtura.records.training import TrainingEpoch
from mixtura.records.training_course import TrainingCourse
from mixtura.training_sections import LogSection

URI_VARIABLE = "MLFLOW_TRACKING_URI"
FOLDER, STATE_FILE = "tensorboard", "mlflow.json"
EXPERIMENT = "mixtura"
MLFLOW_LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}  # else 10 minutes
MAX_TEXT = 500  # characters of a value that an MLflow server takes


class Tracking:
    """The sinks of a run; call it with the course as often as it changes.

    A sink that fails, as when its server is away, is left out from then on, and ``warn`` is told once.

    Raises:
        MissingExtra: a package that the recipe asks for is not installed.
    """

    def __init__(self, recipe: Recipe, folder: Path, warn: Callable[[str], None]) -> None:
        section = LogSection() if recipe.train is None else recipe.train.log
        self._warn, self._open = warn, _sinks(section, folder)
        self._sinks: dict[str, Any] = {}
        self._begun = False
        self._done: dict[str, int] = {}

    def __call__(self, course: TrainingCourse) -> None:
        """Pass on what is new."""
        if not self._begun:
            self._begin(dict(leaves(course.settings)))
        for part in course.parts:
            prefix = f"{part.part}/" if course.trial is None else f"trial-{course.trial}/{part.part}/"
            for epoch in part.epochs:
                if epoch.number > self._done.get(prefix, -1):
                    self._each(
                        lambda sink, epoch=epoch, prefix=prefix: sink.epoch(prefix, epoch.number, figures(epoch))
                    )
                    self._done[prefix] = epoch.number
        if course.result is not None:
            self._each(lambda sink: sink.close())

    def _begin(self, settings: Mapping[str, str]) -> None:
        self._begun = True
        for name, make in self._open.items():
            try:
                self._sinks[name] = make()
            except Exception as error:
                self._lost(name, error)
        self._each(lambda sink: sink.settings(settings))

    def _each(self, work: Callable[[Any], None]) -> None:
        for name, sink in list(self._sinks.items()):
            try:
                work(sink)
            except Exception as error:
                del self._sinks[name]
                self._lost(name, error)

    def _lost(self, name: str, error: Exception) -> None:
        self._warn(f"{name} gets no more figures of this training ({error}). Training goes on.")


def figures(epoch: TrainingEpoch) -> dict[str, float]:
    """The figures of an epoch by name: losses, accuracies, learning rate."""
    found = {} if epoch.loss is None else {"training/loss": epoch.loss, "learning_rate": epoch.learning_rate}
    for name, results in epoch.validation.items():
        place = "validation" if name == "raw" else f"validation_{name}"
        found |= {f"{place}/{key}": value for key, value in results.items()}
    return found


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every setting with its dotted key, as text."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + str(key), str(value)


def _sinks(section: LogSection, folder: Path) -> dict[str, Callable[[], Any]]:
    """What opens each sink; nothing is opened yet."""
    found: dict[str, Callable[[], Any]] = {}
    name = section.name or folder.parent.resolve().name
    if section.tensorboard:
        _need("tensorboard", "train.log.tensorboard")
        place = folder / FOLDER if section.tensorboard is True else Path(section.tensorboard) / name
        found["TensorBoard"] = lambda: TensorBoard(place)
    uri = section.mlflow
    if uri is not None:
        _need("mlflow", "train.log.mlflow")
    elif _installed("mlflow"):
        uri = os.environ.get(URI_VARIABLE) or None
    if uri is not None:
        found["MLflow"] = lambda: MLflow(uri, name, folder / STATE_FILE)
    return found


def _need(package: str, key: str) -> None:
    if not _installed(package):
        raise MissingExtra(f"{key} needs {package}. Run: pip install 'mixtura[tracking]'")


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


class TensorBoard:
    """Event files in a folder; those of the same run that was stopped are superseded."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # here: it needs an extra

        files.make_folder(folder)
        self._writer = SummaryWriter(str(folder), purge_step=0)

    def settings(self, values: Mapping[str, str]) -> None:
        """Show the settings as text."""
        self._writer.add_text("settings", "\n".join(f"    {key}: {value}" for key, value in values.items()), 0)

    def epoch(self, prefix: str, number: int, figures: Mapping[str, float]) -> None:
        """Write scalars, and flush them, so that they can be watched."""
        for name, value in figures.items():
            self._writer.add_scalar(prefix + name, value, number)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class MLflow:
    """A run on a server; ``path`` keeps its id and what it has, so a training that goes on adds to the same run.

    A server that is away is given up after seconds, also in the middle of a training, unless the environment says how
    often to ask again.
    """

    def __init__(self, uri: str, name: str, path: Path) -> None:
        for variable, value in MLFLOW_LIMITS.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]  # here: it is an extra

        self._client, self._path = MlflowClient(tracking_uri=uri), path
        kept = json.loads(path.read_text()) if path.is_file() else {}
        self._fresh = kept.get("uri") != uri
        if self._fresh:
            found = self._client.get_experiment_by_name(EXPERIMENT)
            experiment = self._client.create_experiment(EXPERIMENT) if found is None else found.experiment_id
            kept = {"uri": uri, "run": self._client.create_run(experiment, run_name=name).info.run_id, "done": {}}
        self._kept = kept
        self._save()

    def settings(self, values: Mapping[str, str]) -> None:
        """Log the settings as parameters, once a run."""
        for key, value in values.items() if self._fresh else ():
            self._client.log_param(self._kept["run"], key, value[:MAX_TEXT])

    def epoch(self, prefix: str, number: int, figures: Mapping[str, float]) -> None:
        """Log metrics, unless the run has them from before."""
        if number <= self._kept["done"].get(prefix, -1):
            return
        for name, value in figures.items():
            self._client.log_metric(self._kept["run"], prefix + name, value, step=number)
        self._kept["done"][prefix] = number
        self._save()

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._kept["run"])

    def _save(self) -> None:
        files.make_folder(self._path.parent)
        files.write(self._path, json.dumps(self._kept).encode())

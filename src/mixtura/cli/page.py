"""Write the report page of a model from its evaluation, and the page of a training."""

from collections.abc import Callable
from pathlib import Path

from mixtura.records.decision import Evaluation
from mixtura.records.training_course import TrainingCourse
from mixtura.sections import DataSection

TRAINING_PAGE = "training.html"
"""File in an output folder."""


def write_page(model: Path, evaluation: Evaluation, path: Path | None = None, data: DataSection | None = None) -> Path:
    """Write the report to ``path`` (default: next to the model); ``data`` is the test data if not the model's own.

    Raises:
        CannotWrite, OutOfSpace: the page cannot be written.
    """
    from mixtura.pipeline.thumbnails import thumbnails
    from mixtura.report.page import write_report

    target = path or model / "report.html"
    return write_report(evaluation, target, title=model.resolve().name, thumbnails=thumbnails(model, data))


def training_writer(folder: Path) -> Callable[[TrainingCourse], None]:
    """Return what writes the page of a training into the output folder, as often as it is called.

    Raises:
        CannotWrite, OutOfSpace: the page cannot be written.
    """
    from mixtura import files
    from mixtura.report.training import training_page

    def write(course: TrainingCourse) -> None:
        files.write(folder / TRAINING_PAGE, training_page(course, f"Training of {folder.resolve().name}").encode())

    return write

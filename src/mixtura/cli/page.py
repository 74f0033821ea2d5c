"""The report page of a model: where the command line hands records to the drawing."""

from pathlib import Path

from mixtura.tasks.records import Evaluation


def write_page(model: Path, evaluation: Evaluation, path: Path | None = None) -> Path:
    """Write the report beside the model, or to ``path``; returns where it is.

    Raises:
        CannotWrite, OutOfSpace: the page cannot be written.
    """
    from mixtura.report.page import write_report
    from mixtura.tasks.thumbnails import thumbnails

    target = path or model / "report.html"
    return write_report(evaluation, target, title=model.resolve().name, thumbnails=thumbnails(model))

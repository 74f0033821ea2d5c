"""Write the report page of a model from its evaluation."""

from pathlib import Path

from mixtura.records.decision import Evaluation
from mixtura.sections import DataSection


def write_page(model: Path, evaluation: Evaluation, path: Path | None = None, data: DataSection | None = None) -> Path:
    """Write the report to ``path`` (default: next to the model); ``data`` is the test data if not the model's own.

    Raises:
        CannotWrite, OutOfSpace: the page cannot be written.
    """
    from mixtura.pipeline.thumbnails import thumbnails
    from mixtura.report.page import write_report

    target = path or model / "report.html"
    return write_report(evaluation, target, title=model.resolve().name, thumbnails=thumbnails(model, data))

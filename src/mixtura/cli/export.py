"""``mixtura export``: write a model as graphs for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from mixtura.cli.output import Output
from mixtura.cli.predict import Model
from mixtura.errors import UsageError

ONNX = "onnx"
Format = Annotated[str, typer.Option("--format", metavar="NAME", help="onnx: graphs and a program to run them.")]
Onnx = Annotated[bool, typer.Option("--onnx", help="Short for --format onnx.")]
Folder = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the graphs. Default: MODEL/onnx."),
]

Timm = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write the encoder's weights to FILE (.safetensors) under timm's names instead."),
]


def export(
    out: Output, model: Model, format: Format = ONNX, onnx: Onnx = False, output: Folder = None, timm: Timm = None
) -> None:
    """Export a model for machines without mixtura and PyTorch: the graphs of its encoder and head, and a runner.

    The runner needs numpy, onnxruntime and Pillow. python run.py photo.jpg gives the same verdict, label, probability,
    typicality and reason as mixtura predict, including all catalog edits so far. The graphs accept batches of any size.
    Each export is checked against PyTorch before it is written. Requires: pip install 'mixtura[onnx]'

    With --timm, only the encoder's weights are written, for Python with timm: lite0, timm:NAME, or trained from them.

    Examples:
      mixtura export shop                            writes shop/onnx
      mixtura export shop -o phone/
      mixtura export shop --json | jq .difference
      mixtura export shop --timm shop-encoder.safetensors
    """
    if format != ONNX and not onnx:
        raise UsageError(f"There is no format {format!r}. There is one: {ONNX}.")
    if timm is not None:
        if onnx or output is not None:
            raise UsageError("--timm FILE is an export of its own. Leave out --onnx and --output.")
        _export_timm(out, model, timm)
        return
    from rich.text import Text

    from mixtura.cli.views import written
    from mixtura.tasks.export import run

    made = run(model, output)
    record = {"folder": made.folder, "bytes": made.sizes, "difference": made.difference}
    said = f"{sum(made.sizes.values()) / 1e6:.1f} MB; differs from PyTorch by {made.difference:.0e} at most."
    out.result(record, [str(made.folder)], [Text(said), written(made.folder)])


def _export_timm(out: Output, model: Path, file: Path) -> None:
    from rich.text import Text

    from mixtura.cli.views import written
    from mixtura.tasks.export_timm import run

    made = run(model, file)
    record = {"file": made.file, "bytes": made.size, "timm_name": made.timm_name}
    said = f"{made.size / 1e6:.1f} MB; {made.timm_name} in timm, without its last layer."
    out.result(record, [str(made.file)], [Text(said), written(made.file)])

"""Export a model as a folder of ONNX graphs and a program that runs them without mixtura or PyTorch."""

import hashlib
import re
from dataclasses import dataclass, replace
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mixtura import files
from mixtura.encoders.onnx_graph import need_onnx, to_onnx
from mixtura.errors import CannotWrite, DataError, UsageError
from mixtura.files import is_there
from mixtura.identity import IMPORTED_PREFIX
from mixtura.interfaces import ExportableEncoder
from mixtura.model import bundle
from mixtura.model.model import Model
from mixtura.onnx.graph import EXAMPLE_ROWS, head_bytes, output_names
from mixtura.tasks.predict import current, encoder_for, known_items

EXPORT_LAYOUT = 1
EXPORT_FOLDER = "onnx"
"""Default export folder inside a model's folder."""

HEAD_FILE, ENCODER_FILE, CONFIG_FILE, RUNNER_FILE, README_FILE = (
    "head.onnx",
    "encoder.onnx",
    "config.json",
    "run.py",
    "README.md",
)
EXPORT_FILES = frozenset({HEAD_FILE, ENCODER_FILE, CONFIG_FILE, RUNNER_FILE, README_FILE})
CHECKED_ROWS = 16  # rows on which the graphs are compared with PyTorch
MAX_DIFFERENCE = 1e-4  # largest accepted difference; it is near 1e-6, the precision of float32


@dataclass(frozen=True)
class ExportReport:
    """The export folder, the size of each graph in bytes, and the largest difference from PyTorch.

    ``difference`` is taken over a few items: of a probability; of a feature relative to the largest one; and of a
    log-density relative to its size or to one nat per dimension, whichever is more, as it sums that many terms.
    """

    folder: Path
    sizes: dict[str, int]
    difference: float


def run(model_path: Path, folder: Path | None = None) -> ExportReport:
    """Write a model's encoder and head as ONNX, compared with PyTorch, together with a runner.

    Args:
        model_path: of a model written by ``mixtura fit``, exported with the edits of its catalog.
        folder: target; ``onnx`` inside the model's folder by default.

    Raises:
        MissingExtra: the exporter is not installed.
        NoInput, BundleError: there is no model, or it is damaged.
        UsageError: the encoder cannot be exported.
        CannotWrite, OutOfSpace: the folder holds other files, or cannot be written.
        DataError: the graphs do not compute what the model does.
    """
    need_onnx()
    model = current(model_path)
    target = folder if folder is not None else model_path / EXPORT_FOLDER
    _require_own(target)
    model = replace(model, encoder=model.encoder.model_copy(update={"device": "cpu", "runtime": "torch"}))
    encoder = _exportable(model)
    graphs = {HEAD_FILE: head_bytes(model)}
    difference = _head_difference(model, graphs[HEAD_FILE], _rows(model_path, model))
    if encoder is not None:
        graphs[ENCODER_FILE], apart = _encoder_bytes(encoder)
        difference = max(difference, apart)
    if not difference <= MAX_DIFFERENCE:
        raise DataError(
            f"The graphs differ from the model by {difference:.1e}, more than {MAX_DIFFERENCE}; nothing was written. "
            "Fit with another family or encoder."
        )
    contents = graphs | {
        CONFIG_FILE: bundle.to_json(_config(model, encoder, graphs)),
        RUNNER_FILE: runner_text().encode(),
        README_FILE: _readme(model, encoder).encode(),
    }
    with files.new_folder(target):
        files.write_all({target / name: content for name, content in contents.items()})
    if encoder is None:
        (target / ENCODER_FILE).unlink(missing_ok=True)  # left by an earlier export of another model
    return ExportReport(target, {name: len(content) for name, content in contents.items()}, difference)


def runner_text() -> str:
    """The runner as a single-file program: the verdict rule stands in place of its import."""
    runner = resources.files("mixtura.onnx").joinpath("runner.py").read_text(encoding="utf-8")
    rule = resources.files("mixtura.scores").joinpath("verdict.py").read_text(encoding="utf-8")
    found = re.search(r"^from mixtura\.scores\.verdict import .*$", runner, re.MULTILINE)
    assert found is not None
    return runner.replace(found[0], rule.partition("\nimport numpy as np\n")[2].strip())


def _require_own(folder: Path) -> None:
    """Check that the folder holds nothing but an earlier export."""
    with files.explained(folder):
        others = (
            sorted(path.name for path in folder.iterdir() if path.name not in EXPORT_FILES) if is_there(folder) else []
        )
    others = [name for name in others if not name.startswith(files.TEMPORARY_PREFIX)]
    if others:
        raise CannotWrite(
            f"{folder} holds {others[0]!r}, which mixtura export has not written. Give an empty or a new folder."
        )


def _exportable(model: Model) -> ExportableEncoder | None:
    """The model's encoder, or ``None`` if another program made the features.

    Raises:
        UsageError: it cannot be exported.
    """
    if model.encoder.name.startswith(IMPORTED_PREFIX):
        return None
    encoder = encoder_for(model)
    if not isinstance(encoder, ExportableEncoder):
        raise UsageError(
            f"Encoder {encoder.name!r} cannot be exported. Use lite0, pixels or a network of timm, "
            "or import its features and export the head alone."
        )
    encoder.steps()  # raises if the preprocessing cannot be described
    return encoder


def _rows(model_path: Path, model: Model) -> np.ndarray:
    """Features to compare on: those of the model's own items if available, else noise."""
    known = known_items(model_path, model)
    if known is not None and len(known):
        return known.embedding[:CHECKED_ROWS].astype(np.float32)
    return np.random.default_rng(0).standard_normal((CHECKED_ROWS, model.dimension)).astype(np.float32)


def _session(graph: bytes) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])


def _head_difference(model: Model, graph: bytes, rows: np.ndarray) -> float:
    """The largest difference of a probability, and of a log-density relative to the number of its terms."""
    names = output_names(model)
    found = dict(zip(names, _session(graph).run(list(names), {"features": rows}), strict=True))
    log_prob = model.class_log_prob(model.mixture.component_log_prob(model.project(rows))).logsumexp(1).numpy()
    apart = np.abs(found["log_prob"] - log_prob) / np.maximum(np.abs(log_prob), model.mixture.dimension)
    return float(max(np.abs(found["posterior"] - model.answers(rows).posterior).max(), apart.max()))


def _encoder_bytes(encoder: ExportableEncoder) -> tuple[bytes, float]:
    """The graph of an encoder, and its largest difference from PyTorch relative to the size of a feature."""
    noise = np.random.default_rng(0).integers(0, 256, (2 * EXAMPLE_ROWS, 64, 64, 3), dtype=np.uint8)
    photos = torch.stack([encoder.prepare(Image.fromarray(pixels)) for pixels in noise]).contiguous()
    graph = to_onnx(encoder.graph(), photos[:EXAMPLE_ROWS], "photos", ("features",))
    expected = encoder.encode(photos).numpy()
    found = _session(graph).run(["features"], {"photos": photos.numpy()})[0]
    return graph, float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


def _config(model: Model, encoder: ExportableEncoder | None, graphs: dict[str, bytes]) -> dict[str, Any]:
    """The runner's configuration: everything it needs besides the graphs."""
    return {
        "layout": EXPORT_LAYOUT,
        "mixtura": metadata.version("mixtura"),
        "classes": list(model.classes),
        "dimension": model.dimension,
        "temperature": model.temperature,
        "false_reject_rate": model.decision.false_reject_rate,
        "min_probability": model.decision.min_probability,
        "outputs": list(output_names(model)),
        **_subclasses(model),
        "encoder": {"identity": model.identity} | _input(encoder),
        "sha256": {name: hashlib.sha256(graph).hexdigest() for name, graph in graphs.items()},
    }


def _subclasses(model: Model) -> dict[str, Any]:
    """The names of the subclasses, where they have any, and from which probability on one is named."""
    if model.subclasses is None:
        return {}
    least = model.decision.min_subclass_probability
    return {"subclasses": list(model.subclasses.names), "min_subclass_probability": least}


def _input(encoder: ExportableEncoder | None) -> dict[str, Any]:
    """How photos become the input of the encoder's graph; empty if another program made the features."""
    if encoder is None:
        return {"input": None}
    prepared = encoder.prepare(Image.new("RGB", (64, 64)))
    kind = str(prepared.dtype).removeprefix("torch.")
    return {"input": [*prepared.shape], "dtype": kind, "steps": encoder.steps(), "draft": encoder.draft}


def _readme(model: Model, encoder: ExportableEncoder | None) -> str:
    """The README of an export: its files, and how to run them."""
    given = "photo.jpg" if encoder is not None else "features.npy"
    made = f"- `{ENCODER_FILE}`: prepared photos (N 3 H W) to features (N x {model.dimension}).\n" if encoder else ""
    outputs = ", ".join(f"`{name}`" for name in output_names(model))
    return f"""# A model of {len(model.classes)} classes, as ONNX

Python 3.10 or later with three packages runs it:

```bash
pip install numpy onnxruntime pillow
python {RUNNER_FILE} {given}
python {RUNNER_FILE} {given} --json
```

{made}- `{HEAD_FILE}`: features (N x {model.dimension}) to {outputs}, one row an item. Probabilities have the
  temperature applied; log-densities are in nats.
- `{CONFIG_FILE}`: class names, thresholds, how photos are prepared, and the SHA-256 of the graphs.
- `{RUNNER_FILE}`: prepares photos, runs the graphs and judges: match, unsure or unknown.

A share of {model.decision.false_reject_rate:g} of genuine items may be called unknown. Written by mixtura
{metadata.version("mixtura")} for features of {model.identity.get("name", "elsewhere")}.
"""

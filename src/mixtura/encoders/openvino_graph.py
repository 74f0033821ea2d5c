"""Networks by OpenVINO: about half of PyTorch's time on an x86 CPU, at the same precision."""

import contextlib
import hashlib
import importlib
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from mixtura import files
from mixtura.errors import MixturaError
from mixtura.interfaces import ExportableEncoder

TELEMETRY = "openvino_telemetry"


class OpenVino:
    """The graph of an encoder, compiled for this CPU.

    Converting takes seconds, so what comes out is kept in the cache folder, named after the encoder's fingerprint and
    the versions of OpenVINO and PyTorch.
    """

    packages: ClassVar[tuple[str, ...]] = ("openvino",)

    def __init__(self, encoder: ExportableEncoder, example: Num[Tensor, "N 3 H W"], stored: bool) -> None:
        core = import_openvino().Core()
        self.version = version("openvino")
        kept = _kept_path(encoder.fingerprint, self.version)
        model = core.read_model(kept) if stored and kept.is_file() else None
        if model is None:
            self._source = encoder.graph()  # its weights may be shared with what is made of it
            model = _converted(self._source, example)
            if _keep(model, kept):
                model = core.read_model(kept)  # rounds as it will in later processes
        self._request = core.compile_model(model, "CPU", _options()).create_infer_request()

    def __call__(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """The vectors of a batch."""
        pixels = batch.permute(0, 2, 3, 1).contiguous().numpy()
        self._request.infer({0: pixels}, share_inputs=True)
        return torch.from_numpy(self._request.get_output_tensor(0).data.copy())


def import_openvino() -> Any:
    """The package, without its telemetry: it would report every import to its makers."""
    before = sys.modules.get(TELEMETRY)
    sys.modules[TELEMETRY] = None  # pyright: ignore[reportArgumentType]  # makes its import fail; it is optional
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[TELEMETRY]
        if before is not None:
            sys.modules[TELEMETRY] = before


def _options() -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": "f32",  # on recent CPUs the default is bfloat16, with three digits
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # threads that decode photos share the cores
    }


def _converted(graph: nn.Module, example: Num[Tensor, "N 3 H W"]) -> Any:
    """The graph for any number of photos, channels last, as Pillow stores them."""
    ov = import_openvino()
    decoder = importlib.import_module("openvino.frontend.pytorch.fx_decoder").TorchFXPythonDecoder
    frontend = importlib.import_module("openvino.frontend").FrontEndManager().load_by_framework("pytorch")
    size = {0: torch.export.Dim("batch", min=1)}
    with _quiet(), torch.inference_mode(False), torch.no_grad():
        program = torch.export.export(graph.eval(), (example.clone(),), dynamic_shapes=(size,), strict=False)
        decoded = decoder.from_exported_program(program)  # has to outlive what is loaded from it
        model = frontend.convert(frontend.load(decoded))
    steps = importlib.import_module("openvino.preprocess").PrePostProcessor(model)
    steps.input().tensor().set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    model = steps.build()
    _, channels, height, width = example.shape
    model.reshape([-1, height, width, channels])
    return model


def _kept_path(fingerprint: str, own_version: str) -> Path:
    key = hashlib.sha256(f"1 {fingerprint} {own_version} {torch.__version__}".encode()).hexdigest()
    return files.cache_folder("openvino") / f"{key[:32]}.xml"


def _keep(model: Any, path: Path) -> bool:
    """Save a converted graph beside its weights, if possible; later processes take longer to start otherwise."""
    with contextlib.suppress(OSError, RuntimeError, MixturaError):
        files.make_folder(path.parent)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=files.TEMPORARY_PREFIX) as folder:
            made = Path(folder) / path.name
            import_openvino().save_model(model, made, compress_to_fp16=False)
            for suffix in (".bin", ".xml"):
                made.with_suffix(suffix).replace(path.with_suffix(suffix))
        return True
    return False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the converter, which warns of operations that PyTorch no longer has through the root logger."""
    root, handler = logging.getLogger(), logging.NullHandler()  # without a handler logging would install one for good
    root.addHandler(handler)
    root.addFilter(_is_ours)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(_is_ours)
        root.removeHandler(handler)


def _is_ours(record: logging.LogRecord) -> bool:
    return "decomp table" not in record.getMessage()

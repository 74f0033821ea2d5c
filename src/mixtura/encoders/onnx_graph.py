"""Modules as ONNX bytes, and networks by ONNX Runtime."""

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from mixtura.errors import MissingExtra, UsageError
from mixtura.interfaces import ExportableEncoder

MAX_FILE_BYTES = 2**31 - 2**20  # bytes; the limit of one ONNX file
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class OnnxRuntime:
    """The graph of an encoder in ONNX Runtime; nothing is kept for later processes."""

    packages: ClassVar[tuple[str, ...]] = PACKAGES

    def __init__(self, encoder: ExportableEncoder, example: Num[Tensor, "N 3 H W"], stored: bool) -> None:
        import onnxruntime

        self.version = version("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # decoders share the cores
        graph = to_onnx(encoder.graph(), example.contiguous(), "photos", ("features",))
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def __call__(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """The vectors of a batch."""
        found: Any = self._session.run(["features"], {"photos": batch.contiguous().numpy()})
        return torch.from_numpy(found[0])


def to_onnx(module: nn.Module, example: Tensor, name: str, outputs: tuple[str, ...]) -> bytes:
    """The ONNX bytes of a single-input module, for any number of rows, with its weights inside.

    Args:
        module: to trace.
        example: three rows of the input; their values do not matter.
        name: of the input.
        outputs: names of the outputs.

    Raises:
        UsageError: the module cannot be traced, or one file cannot hold it.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    if size > MAX_FILE_BYTES:
        raise UsageError(f"The graph would hold {size / 2**30:.1f} GiB and ONNX files end at 2. Project to fewer axes.")
    with _quiet():
        try:
            program: Any = torch.onnx.export(
                module.eval(),
                (example,),
                dynamo=True,
                verbose=False,
                input_names=[name],
                output_names=list(outputs),
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0][:200]
            raise UsageError(f"This network cannot be written as ONNX: {reason}. Choose another encoder.") from error
    return program.model_proto.SerializeToString()


def need_onnx() -> None:
    """Check that the exporter and the runtime are installed.

    Raises:
        MissingExtra: one is not.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(f"Writing ONNX needs {', '.join(missing)}. Run: pip install 'mixtura[onnx]'")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which warns of its own future and logs each step; neither concerns the user."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

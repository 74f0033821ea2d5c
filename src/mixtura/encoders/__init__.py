"""Encoders: photos or sounds in, vectors out.  Each entry is built as ``Class(size=..., weights=..., device=...)``.

Those whose layers can be tapped take ``taps`` too (:mod:`mixtura.encoders.taps`), those of sounds ``clips`` and
``normalize`` (:mod:`mixtura.encoders.sounds`); those that begin with drawn weights take a ``seed``
(:mod:`mixtura.encoders.scratch`). ``timm``, ``hf`` and ``clap`` need the name of a network, ``own`` a folder: see
:func:`mixtura.encoders.common.split_name`.
"""

ENCODERS = {
    "lite0": "mixtura.encoders.lite0:Lite0",
    "timm": "mixtura.encoders.timm:Timm",
    "hf": "mixtura.encoders.hf:HuggingFace",
    "pixels": "mixtura.encoders.pixels:Pixels",
    "tiny": "mixtura.encoders.tiny:Tiny",
    "cnn": "mixtura.encoders.cnn:Cnn",
    "resnet12": "mixtura.encoders.resnet12:ResNet12",
    "resnet32": "mixtura.encoders.resnet32:ResNet32",
    "autoencoder": "mixtura.encoders.autoencoder:Autoencoder",
    "own": "mixtura.encoders.own:Own",
    "soundnet": "mixtura.encoders.soundnet:SoundNet",
    "logmel": "mixtura.encoders.logmel:LogMel",
    "clap": "mixtura.encoders.clap:Clap",
    "imagebind": "mixtura.encoders.imagebind:ImageBind",
    "imagebind-vision": "mixtura.encoders.imagebind_vision:ImageBindVision",
}

RUNTIMES = {
    "openvino": "mixtura.encoders.openvino_graph:OpenVino",
    "onnx": "mixtura.encoders.onnx_graph:OnnxRuntime",
}
"""What can compute the graph of an encoder in place of PyTorch: see :mod:`mixtura.encoders.runtime`."""

NAME_FORMS = {
    "timm": ("timm:NAME", "timm:NAME@weights.safetensors"),
    "hf": ("hf:NAME of the hub", "hf:./FOLDER"),
    "own": ("own:FOLDER of mixtura train",),
    "clap": ("clap:NAME of the hub", "clap:FOLDER"),
}
"""The encoders whose name goes on, and how it is written."""

WITH_WEIGHTS = frozenset({"timm"})
"""Those of them that may name a weight file behind an @."""

NATIVE_SIZES = {
    "lite0": 224,
    "pixels": 16,
    "tiny": 32,
    "cnn": 64,
    "resnet12": 84,
    "resnet32": 32,
    "autoencoder": 64,
    "imagebind-vision": 224,
}
"""Side in pixels at which each encoder of mixtura reads photos unless told; networks of timm and hf know their own."""

WITHOUT_SIZE = frozenset({"soundnet", "logmel", "clap", "imagebind"})
"""The encoders of sounds, which take no size."""

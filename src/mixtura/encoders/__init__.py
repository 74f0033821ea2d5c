"""Encoders: photos in, vectors out.  Each entry is built as ``Class(size=..., weights=..., device=...)``.

``timm`` needs the name of a network too: see :func:`mixtura.encoders.protocol.split_name`.
"""

ENCODERS = {
    "lite0": "mixtura.encoders.lite0:Lite0",
    "timm": "mixtura.encoders.timm:Timm",
    "pixels": "mixtura.encoders.pixels:Pixels",
    "tiny": "mixtura.encoders.tiny:Tiny",
}

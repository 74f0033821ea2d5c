"""What schemathesis cannot make up: photos. Loaded by it through SCHEMATHESIS_HOOKS."""

import base64
import io

import numpy as np
import schemathesis
from hypothesis import strategies as st
from PIL import Image

KINDS = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "x-portable-anymap": "PPM"}


def photos(kind):
    """The bytes of twenty photos of noise in one format."""
    made = []
    for seed in range(20):
        pixels = np.random.default_rng(seed).integers(0, 256, (72 + seed, 80, 3), dtype=np.uint8)
        target = io.BytesIO()
        Image.fromarray(pixels).save(target, kind)
        made.append(target.getvalue())
    return made


for name, kind in KINDS.items():
    schemathesis.openapi.media_type(f"image/{name}", st.sampled_from(photos(kind)))
schemathesis.openapi.format("photo", st.sampled_from([base64.b64encode(photo).decode() for photo in photos("JPEG")]))

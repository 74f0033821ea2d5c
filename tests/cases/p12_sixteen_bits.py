"""pytorch/vision#2218, python-pillow/Pillow#5991, huggingface/pytorch-image-models#831, junyanz/CycleGAN#321: 16-bit PNG; a camera of 12 bits in it."""

import io

import numpy as np
from common import check, end
from PIL import Image

from mixtura.datasets.decode import decode


def png(a):
    f = io.BytesIO()
    Image.fromarray(a).save(f, "PNG")
    return f.getvalue()


m = np.asarray(decode(png(np.linspace(0, 65535, 4096).reshape(64, 64).astype(np.uint16)))).mean()
check("16 bits used: mean gray", 120 < m < 135, m)
m = np.asarray(decode(png(np.linspace(0, 4095, 4096).reshape(64, 64).astype(np.uint16)))).mean()
check("12 bits in a 16-bit file: not nearly black, or told", m > 60, f"mean {m:.1f} of 255")
end()

"""Cases that hold: vision#4925 #8297 (empty class), cleanlab#288 #641, tfds#2068 (class only in test), EXIF (fastai#3565, kohya#1316, tensorflow#49834, detectron2#262),
PNG of 1 bit (turicreate#375), CMYK, animations, MPO, .JPEG (datasets#4514), predict on unicode names, faiss#915 #1206 #2657 #3830."""

import io
import json
import shutil

import numpy as np
from common import TMP, check, cli, end, folder, jpeg, shop
from PIL import Image, ImageOps

from mixtura.datasets.decode import decode


def enc(im, fmt, **k):
    f = io.BytesIO()
    im.save(f, fmt, **k)
    return f.getvalue()


a = Image.fromarray(np.random.RandomState(0).randint(0, 255, (20, 12, 3), np.uint8))
for o in range(1, 9):
    ex = Image.Exif()
    ex[0x112] = o
    d = enc(a, "JPEG", exif=ex, quality=95)
    want = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(d))).convert("RGB"))
    check(f"EXIF {o}", np.array_equal(np.asarray(decode(d)), want))
check("PNG of 1 bit", np.asarray(decode(enc(a.convert("1"), "PNG"))).max() == 255)
check("white CMYK is white", np.asarray(decode(enc(Image.new("CMYK", (8, 8)), "JPEG"))).min() == 255)
fr = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
for k in ("GIF", "WEBP", "PNG"):
    check(
        f"first frame of {k}",
        np.asarray(decode(enc(fr[0], k, save_all=True, append_images=fr[1:])))[0, 0].argmax() == 0,
    )
check("transparent is white", np.asarray(decode(enc(Image.new("RGBA", (8, 8)), "PNG"))).min() == 255)
root = folder(TMP / "p")
(root / "quince").mkdir()
code, out, err = cli("fit", root, "-o", TMP / "o", "--encoder", "pixels")
check("4925 empty class: told, the others learned", code == 0 and "quince" in out + err)
ts = TMP / "ts"
src = folder(TMP / "s")
for p, cs in (("train", ("apple", "pear")), ("test", ("apple", "pear", "lemon"))):
    for c in cs:
        shutil.copytree(src / c, ts / p / c)
code, out, err = cli("fit", ts, "-o", TMP / "ot", "--encoder", "pixels")
check("2068 class only in test: told", code == 0 and "lemon" in out + err)
model, _ = shop()
b = TMP / "\u00fcn\u00efc\u00f6d\u00e9 \u7ea2.JPEG"
b.write_bytes(jpeg(0, 77))
code, out, err = cli("predict", model, b, "--json", "--neighbors", 500)
d = json.loads(out)[0]
check("unicode name, upper-case ending", d["label"] == "apple")
check(
    "faiss: 500 neighbors of 56, all real, cosine at most 1",
    len(d["neighbors"]) == 56 and max(n["similarity"] for n in d["neighbors"]) <= 1,
)
end()

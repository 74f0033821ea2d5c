"""Messages that say a thing twice or say what is not so (met on the way)."""

import io

from common import TMP, caught, check, cli, end, jpeg, photo, shop

from mixtura.datasets.decode import decode


def enc(fmt):
    f = io.BytesIO()
    photo(0, 0).save(f, fmt)
    return f.getvalue()


e = caught(lambda: decode(enc("TGA")))
check("a TGA is not called an icon", "icon" not in str(e), e)
for k in ("SGI", "DDS", "PCX"):
    e = caught(lambda: decode(enc(k)))
    check(f"{k}: not 'is not an image, whatever its name says'", "whatever its name says" not in str(e), e)
model, root = shop()
(root / "notes").mkdir()
code, out, err = cli("fit", root, "-o", TMP / "o", "--encoder", "pixels")
line = [l for l in out.splitlines() if l.strip().startswith("notes")]
check("a left-out folder is named once", bool(line) and line[0].count("notes") == 1, line)
(TMP / "k.jpg").write_bytes(jpeg(4, 1))
cli("enroll", model, "kettle", TMP / "k.jpg")
code, out, err = cli("remove", model, "--product", "nope")
check("known products are listed once", err.count("kettle") == 1, err.strip())
code, out, err = cli("predict", model, "https://example.org/a.jpg", "-q")
code2, out2, err2 = cli("predict", model, "https://example.org/a.jpg")
check(
    "an address: said to be no file here, shown as it was given",
    "https://example.org" in out2 + err2,
    (out2 + err2).split("Why")[-1].strip()[-150:],
)
mix = TMP / "mix"
(mix / "a").mkdir(parents=True)
(mix / "b").mkdir()
(mix / "a" / "x.wav").write_bytes(b"RIFF\0\0\0\0WAVEfmt ")
[(mix / "b" / f"{i}.jpg").write_bytes(jpeg(1, i)) for i in range(6)]
code, out, err = cli("fit", mix, "-o", TMP / "om", "--encoder", "pixels")
check("a folder of sounds beside one of photos: sounds are named", "sound" in err, err.strip())
end()

"""supervisely#839, sylikc/jpegview#168, nomacs#627 (.jfif), caezium/burrow#283 (HEIC passed over in silence), huggingface/datasets#4514 (.JPEG).
What fit reads, predict and enroll must read; what is not read must be told."""

from common import TMP, check, cli, end, folder, jpeg, photo, shop

model, root = shop()
data = jpeg(0, 77)
for e in ("jpg", "JPG", "JPEG", "jfif", "jpe"):
    box = TMP / f"b-{e}"
    box.mkdir()
    (box / f"a.{e}").write_bytes(data)
    code, out, err = cli("predict", model, box, "-q")
    check(f"predict FOLDER with a.{e}: answered", code == 0 and "match" in out, f"rc {code} {(out + err).strip()[:90]}")
for e in ("ppm", "pnm", "pbm"):
    box = TMP / f"b-{e}"
    box.mkdir()
    (photo(0, 77).convert("1") if e == "pbm" else photo(0, 77)).save(box / f"a.{e}", "PPM")
    code, out, err = cli("predict", model, box, "-q")
    check(
        f"predict FOLDER with a.{e}: answered",
        code == 0 and len(out.splitlines()) == 1,
        f"rc {code} {(out + err).strip()[:90]}",
    )
heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
box = TMP / "mixed"
box.mkdir()
(box / "a.jpg").write_bytes(data)
(box / "b.heic").write_bytes(heic)
photo(1, 3).save(box / "c.tif")
photo(1, 3).save(box / "d.avif")
code, out, err = cli("predict", model, box, "-q")
check(
    "predict FOLDER with .heic, .tif, .avif: each has a row with a reason",
    all(n in out + err for n in ("b.heic", "c.tif", "d.avif")),
    f"rc {code} {out.splitlines()}",
)
new = TMP / "kettle"
new.mkdir()
(new / "a.jpg").write_bytes(jpeg(4, 1))
(new / "b.heic").write_bytes(heic)
code, out, err = cli("enroll", model, "kettle", new)
check(
    "enroll FOLDER: nothing is enrolled, or the .heic is told",
    "heic" in (out + err).lower(),
    f"rc {code} {out.splitlines()[:1]}",
)
fit = folder(TMP / "fit")
(fit / "apple" / "x.heic").write_bytes(heic)
code, out, err = cli("fit", fit, "-o", TMP / "of", "--encoder", "pixels")
check("fit tells of the .heic", "heic" in out + err)
flat = TMP / "flat"
flat.mkdir()
[(flat / f"{i}.jpg").write_bytes(jpeg(0, i)) for i in range(5)]
(flat / "x.heic").write_bytes(heic)
code, out, err = cli("extract", flat, "-o", TMP / "ox", "--encoder", "pixels", "--json")
check("extract tells of the .heic", "heic" in out + err, out.replace("\n", " ")[:140])
end()

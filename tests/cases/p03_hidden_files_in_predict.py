"""pytorch/vision#109 #2831, fastai/fastai#488 #200, open-mmlab/mmpretrain#507, scverse/spatialdata-io#260, motioneye#89: hidden files.
fit leaves them alone; predict, enroll and search must as well."""

from pathlib import Path

from common import TMP, check, cli, end, folder, jpeg, shop

model, root = shop()
h = folder(TMP / "hid")
(h / ".DS_Store").write_text("x")
(h / "apple" / "Thumbs.db").write_text("x")
(h / "apple" / "._1.jpg").write_bytes(b"AppleDouble")
(h / "apple" / ".ipynb_checkpoints").mkdir()
(h / "apple" / ".ipynb_checkpoints" / "1-checkpoint.jpg").write_bytes(jpeg(0, 1))
(h / ".ipynb_checkpoints").mkdir()
code, out, err = cli("fit", h, "-o", TMP / "oh", "--encoder", "pixels", "-q")
check("fit leaves them alone", code == 0 and (TMP / "oh" / "split.csv").read_text().count("\n") == 57, err)
box = TMP / "inbox"
box.mkdir()
(box / "a.jpg").write_bytes(jpeg(0, 77))
(box / "._a.jpg").write_bytes(b"AppleDouble")
(box / ".ipynb_checkpoints").mkdir()
(box / ".ipynb_checkpoints" / "a-checkpoint.jpg").write_bytes(jpeg(0, 77))
(box / ".Trashes").mkdir()
(box / ".Trashes" / "b.jpg").write_bytes(jpeg(1, 5))
code, out, err = cli("predict", model, box, "-q")
check(
    "predict FOLDER: one row, exit code 0", code == 0 and len(out.splitlines()) == 1, f"rc {code}: {out.splitlines()}"
)
code, out, err = cli("search", model, box, "-q")
check(
    "search FOLDER: one photo, exit code 0",
    code == 0 and {l.split(chr(9))[0] for l in out.splitlines()} == {str(box / "a.jpg")},
    f"rc {code}: {sorted({Path(l.split(chr(9))[0]).name for l in out.splitlines()})}",
)
new = TMP / "kettle"
new.mkdir()
(new / "a.jpg").write_bytes(jpeg(4, 1))
(new / "b.jpg").write_bytes(jpeg(4, 2))
(new / "._a.jpg").write_bytes(b"AppleDouble")
code, out, err = cli("enroll", model, "kettle", new)
check("enroll FOLDER: the two photos", code == 0, f"rc {code}: {err.strip()[:150]}")
conf = folder(TMP / "conf", first=100)  # as filed they were those of the fit, which set no limits
(conf / ".ipynb_checkpoints").mkdir()
(conf / "apple" / ".DS_Store").write_text("x")
(conf / "apple" / "._1.jpg").write_bytes(b"AppleDouble")
(conf / "apple" / "notes.txt").write_text("x")
code, out, err = cli("recalibrate", model, "--confirmed", conf)
check(
    "recalibrate --confirmed FOLDER: hidden files and notes.txt left alone",
    code == 0 and "._1" not in out + err and "DS_Store" not in out + err and "notes.txt" not in out + err,
    (out + err).strip()[-150:],
)
end()

"""sicara/easy-few-shot-learning#68 #44 (unclear error on too few photos): the reason that is given must be the real one."""

from pathlib import Path

from common import SRC, TMP, check, cli, end, folder, jpeg
from PIL import Image

root = TMP / "c"
for n, c in (("a", 0), ("b", 1)):
    (root / n).mkdir(parents=True)
    [(root / n / f"{i}.jpg").write_bytes(jpeg(c, 0)) for i in range(8)]
code, out, err = cli("fit", root, "-o", TMP / "o", "--encoder", "pixels")
check(
    "eight copies of one photo a class: copies are named",
    code == 0 or any(w in err for w in ("cop", "duplicate", "same photo", "alike")),
    err.strip()[:200],
)
one = folder(TMP / "one", n=1)
code, out, err = cli("fit", one, "-o", TMP / "o1", "--encoder", "pixels")
check("one photo a class: one clear sentence", code == 65 and "three photos" in err, err.strip()[:120])
docs = Path(SRC).parent / "docs/how-to/shop.md"
check(
    "the how-to does not promise that one photo a class is enough",
    "one is not refused" not in docs.read_text(),
    "docs/how-to/shop.md: 'ten may do, one is not refused'",
)
blk = TMP / "blk" / "x"
blk.mkdir(parents=True)
[Image.new("RGB", (40, 40)).save(blk / f"{i}.png") for i in range(8)]
code, out, err = cli("cluster", TMP / "blk", "-o", TMP / "oc", "--encoder", "pixels")
check(
    "cluster of black pictures: a sentence a person can act on", code == 0 or "projection" not in err, err.strip()[:150]
)
end()

"""pytorch/vision#2831, BiaPyX/BiaPy#125: a flat folder of photos with one stray sub-folder: all photos are dropped, and extract says nothing."""

import json

from common import TMP, check, cli, end, jpeg

flat = TMP / "flat"
(flat / "old").mkdir(parents=True)
[(flat / f"{c}{i}.jpg").write_bytes(jpeg(c, i)) for c in range(2) for i in range(6)]
(flat / "old" / "z.jpg").write_bytes(jpeg(2, 0))
code, out, err = cli("extract", flat, "-o", TMP / "ox", "--encoder", "pixels", "--json")
d = json.loads(out) if code == 0 else {}
check(
    "extract: 13 photos, or 12 problems",
    d.get("done") == 13 or len(d.get("problems", [])) == 12,
    f"done {d.get('done')}, problems {len(d.get('problems', []))}",
)
code, out, err = cli("extract", flat, "-o", TMP / "ox2", "--encoder", "pixels")
check("extract in words: what was left out is told", "left out" in out + err or "13 computed" in out, out.strip())
code, out, err = cli("cluster", flat, "-o", TMP / "oc", "--encoder", "pixels")
check("cluster: 13 photos, or told why not", code == 0 or "class folder" in err or "left out" in err, err.strip())
end()

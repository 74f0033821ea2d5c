"""File names that are no UTF-8 (an old archive): --json must be JSON that other programs read (no lone surrogates)."""

import json
import os
import subprocess
from pathlib import Path

from common import ENV, PY, TMP, caught, check, end, jpeg, shop

model, root = shop()
box = TMP / "box"
box.mkdir()
(Path(os.fsdecode(os.fsencode(box) + b"/bad\xff.jpg"))).write_bytes(jpeg(0, 77))
p = subprocess.run([PY, "-m", "mixtura", "predict", str(model), str(box), "--json"], capture_output=True, env=ENV)
raw = p.stdout.decode()
check("no lone surrogate in the JSON", "\\udcff" not in raw, [l.strip() for l in raw.splitlines() if '"id"' in l][:1])
d = json.loads(raw)[0]["id"]
check("the id can be encoded", not isinstance(caught(lambda: d.encode()), Exception), repr(d)[-16:])
end()

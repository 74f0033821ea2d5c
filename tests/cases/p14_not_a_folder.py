"""A zip, a tar or one photo where a folder is asked for (pieces of many set-up threads): the message must not say that it does not exist."""

import zipfile

from common import TMP, check, cli, end, folder

root = folder(TMP / "p", n=2)
with zipfile.ZipFile(TMP / "photos.zip", "w") as z:
    [z.write(f, f.relative_to(root)) for f in root.rglob("*.jpg")]
for f in (TMP / "photos.zip", root / "apple" / "0.jpg"):
    code, out, err = cli("fit", f, "-o", TMP / "o", "--encoder", "pixels")
    check(
        f"{f.name}: says that it is no folder (unpack it)",
        code != 0 and "there is no such folder" not in err,
        err.strip()[-130:],
    )
end()

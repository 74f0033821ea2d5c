"""x0b/rcx#177, mbrrg/synology-thumbgen#11 (@eaDir of a NAS), Windows and Mac folders: no class, no photos, no test rows of their own."""

from common import TMP, check, classes_of, cli, end, folder, jpeg

root = folder(TMP / "p")
for c in ("apple", "pear"):
    for i in range(3):
        d = root / c / "@eaDir" / f"{i}.jpg"
        d.mkdir(parents=True)
        (d / "SYNOPHOTO_THUMB_M.jpg").write_bytes((root / c / f"{i}.jpg").read_bytes())
d = root / "@eaDir" / "x"
d.mkdir(parents=True)
(d / "SYNOPHOTO_THUMB_B.jpg").write_bytes(jpeg(0, 0))
for n in ("$RECYCLE.BIN", "System Volume Information", "lost+found", "__MACOSX"):
    (root / n).mkdir()
(root / "$RECYCLE.BIN" / "$R1.jpg").write_bytes(jpeg(1, 1))
(root / "__MACOSX" / "0.jpg").write_bytes(jpeg(1, 2))
code, out, err = cli("fit", root, "-o", TMP / "o", "--encoder", "pixels")
got = classes_of(TMP / "o") if code == 0 else err
check("classes are the four fruits", got == ["apple", "lemon", "pear", "plum"], got)
rows = (TMP / "o" / "split.csv").read_text()
check("no thumbnail among the rows", "@eaDir" not in rows, rows.count("@eaDir"))
end()

"""fastai/fastai#1552, huggingface/datasets#5650: train/ and test/ beside annotations/, docs/ or __MACOSX/ become the classes, silently.
Siblings: train_set/test_set, train/dev, train/val/test inside one wrapping folder."""

import shutil

from common import TMP, check, classes_of, cli, end, folder, jpeg

src = folder(TMP / "src")


def case(name, parts, extra=()):
    root = TMP / name
    for p in parts:
        shutil.copytree(src, root / p)
    for e, put in extra:
        (root / e).mkdir(parents=True)
        put(root / e)
    code, out, err = cli("fit", root, "-o", TMP / ("o" + name), "--encoder", "pixels")
    got = classes_of(TMP / ("o" + name)) if code == 0 else None
    ok = (
        got == ["apple", "lemon", "pear", "plum"]
        or code != 0
        or any(w in (out + err).lower() for w in ("split", "train and test", "look like parts"))
    )
    check(
        f"{'+'.join(parts)}{' beside ' + extra[0][0] if extra else ''}: classes are the fruits, or it is told",
        ok,
        got or err.strip()[:140],
    )


case("a", ("train", "test"))
case("a2", ("Training", "Testing"))
case("b", ("train", "test"), [("annotations", lambda d: (d / "a.xml").write_text("x"))])
case("c", ("train", "valid", "test"), [("__MACOSX", lambda d: (d / "._x.jpg").write_bytes(b"x"))])
case("d", ("train", "test"), [("docs", lambda d: (d / "figure.jpg").write_bytes(jpeg(0, 1)))])
case("e", ("train_set", "test_set"))
case("f", ("train", "dev"))
end()

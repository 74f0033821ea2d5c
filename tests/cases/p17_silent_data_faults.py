"""cleanlab#288 #921, pytorch/vision ImageFolder threads: faults of the data that fit learns from without a word (inspect finds some of them)."""

from common import TMP, check, classes_of, cli, end, folder, jpeg

r = TMP / "case"
for n, i in (("Apple", range(5)), ("apple", range(5, 10)), ("APPLE", range(10, 14))):
    (r / n).mkdir(parents=True)
    [(r / n / f"{k}.jpg").write_bytes(jpeg(0, k)) for k in i]
(r / "pear").mkdir()
[(r / "pear" / f"{k}.jpg").write_bytes(jpeg(1, k)) for k in range(14)]
code, out, err = cli("fit", r, "-o", TMP / "oc", "--encoder", "pixels")
check(
    "Apple, apple and APPLE: told that they differ by case only",
    "case" in (out + err).lower() or "upper" in (out + err).lower(),
    classes_of(TMP / "oc"),
)
d = folder(TMP / "dup", ("apple", "pear", "plum"))
[(d / "pear" / f"a{k}.jpg").write_bytes((d / "apple" / f"{k}.jpg").read_bytes()) for k in range(4)]
code, out, err = cli("fit", d, "-o", TMP / "od", "--encoder", "pixels")
check(
    "four photos lie in two classes: told",
    any(w in out + err for w in ("several labels", "two classes", "inspect")),
    "nothing",
)
w = folder(TMP / "w", ("apple", "pear", "plum"))
(w / "l.csv").write_text(
    "file_name,label,weight\n"
    + "".join(f"{c}/{i}.jpg,{c},{0 if c == 'apple' else 1}\n" for c in ("apple", "pear", "plum") for i in range(14))
)
code, out, err = cli("fit", w / "l.csv", "-o", TMP / "ow", "--encoder", "pixels")
check(
    "a class of weight 0 only: told (it can never be answered)",
    code != 0 or "weight" in out + err,
    [l for l in out.splitlines() if "apple" in l][:1],
)
end()

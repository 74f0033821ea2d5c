"""huggingface/datasets#6853, timm#334, fastai#2270: folders of links (DVC, git-annex, the cache of Hugging Face)."""

from common import TMP, check, cli, end, folder, shop

src = folder(TMP / "store")
root = TMP / "links"
for c in ("apple", "pear", "plum"):
    (root / c).mkdir(parents=True)
    [(root / c / f"{i}.jpg").symlink_to(src / c / f"{i}.jpg") for i in range(10)]
code, out, err = cli("fit", root, "-o", TMP / "o", "--encoder", "pixels", "-q")
check(
    "fit on links out of the folder: read, or the message names the option that allows it",
    code == 0 or "--" in err,
    err.strip()[-150:],
)
model, _ = shop()
code, out, err = cli("predict", model, root / "apple", "-q")
check("predict reads the same links (so it is not a guard)", code == 0)
end()

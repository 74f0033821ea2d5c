"""huggingface/datasets#6801, autogluon (paths kept as given): a model made with --encoder timm:NAME@weights.safetensors is asked from another folder (systemd, cron, Docker).
docs/how-to/shop.md shows exactly this command with a relative file."""

import shutil

import numpy as np
from common import TMP, check, cli, end, features, folder
from safetensors.torch import save_file

from mixtura.encoders.torchvision_repair import import_timm

work = TMP / "work"
work.mkdir()
root = folder(work / "photos", n=8)
other = TMP / "other"
other.mkdir()
save_file(import_timm().create_model("resnet18", pretrained=False).state_dict(), work / "w.safetensors")
code, out, err = cli(
    "fit", "photos", "-o", "m", "--encoder", "timm:resnet18@w.safetensors", "--size", "64", "-q", cwd=work
)
check("fit", code == 0, err[-200:])
p = root / "apple" / "0.jpg"
check("predict from the same folder", cli("predict", work / "m", p, "-q", cwd=work)[0] == 0)
code, out, err = cli("predict", work / "m", p, "-q", cwd=other)
check("predict from another folder", code == 0, err.strip()[-120:])
code, out, err = cli("export", work / "m", "--onnx", "-o", TMP / "x", cwd=other)
check("export from another folder", code == 0, err.strip()[-120:])
r = np.random.RandomState(0)
f = features(
    "feat", r.randn(60, 4).astype(np.float32) + np.repeat([[0], [4], [8]], 20, 0), np.repeat(["a", "b", "c"], 20)
)
shutil.move(str(f), str(work / "feat"))
code, out, err = cli("fit", "feat", "-o", "mf", "-q", cwd=work)
check("fit of a feature store", code == 0, err)
code, out, err = cli("evaluate", work / "mf", "-q", cwd=other)
check("evaluate it from another folder", code == 0, err.strip()[-150:])
code, out, err = cli("fit", "photos", "-o", "mz", "--encoder", "timm:resnet18@absent.safetensors", "-q", cwd=work)
check(
    "a missing weight file: one sentence and nothing of the libraries",
    code == 66 and len(err.strip().splitlines()) == 1,
    err.strip()[:160],
)
end()

"""Made-up photos, a small model and a service for the cases, and their verdict.

Every case is a program that rebuilds what users of other tools reported: ``python tests/cases/NAME.py`` from the root of
the repository, or ``make cases`` for all. It prints what it saw and ends with PASS or FAIL.
"""

import os
import sys

SRC = os.path.abspath(os.environ.get("MIXTURA_SRC", "src"))
sys.path.insert(0, SRC)
for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(k, "1")
import http.client
import io
import json
import shutil
import signal
import subprocess
import tempfile
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

PY = os.environ.get("MIXTURA_PYTHON", sys.executable)
ENV = dict(os.environ, PYTHONPATH=SRC, PYTHONDONTWRITEBYTECODE="1")
TOKEN = "t" * 32
_tmp = tempfile.TemporaryDirectory(prefix="case-")
TMP = Path(_tmp.name)


def photo(c, i, size=48):
    r = np.random.RandomState(1000 * c + i)
    base = np.array([[220, 40, 40], [40, 200, 60], [50, 60, 220], [230, 210, 40], [200, 60, 200], [60, 200, 200]])[
        c % 6
    ]
    a = np.full((size, size, 3), 245, np.uint8)
    yy, xx = np.mgrid[:size, :size]
    cx, cy, rad = size / 2 + r.randint(-6, 7), size / 2 + r.randint(-6, 7), size * 0.3 + r.randint(-3, 4)
    m = ((xx - cx) ** 2 + (yy - cy) ** 2 < rad**2) if c % 2 == 0 else ((abs(xx - cx) < rad) & (abs(yy - cy) < rad))
    a[m] = np.clip(base + r.randint(-25, 26, 3), 0, 255)
    return Image.fromarray(np.clip(a.astype(int) + r.randint(-12, 13, a.shape), 0, 255).astype(np.uint8))


def jpeg(c, i):
    f = io.BytesIO()
    photo(c, i).save(f, "JPEG")
    return f.getvalue()


def folder(root, names=("apple", "pear", "plum", "lemon"), n=14, first=0):
    root = Path(root)
    for c, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(first, first + n):
            (root / name / f"{i}.jpg").write_bytes(jpeg(c, i))
    return root


def cli(*args, timeout=240, **kw):
    p = subprocess.run(
        [PY, "-m", "mixtura", *map(str, args)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        env=ENV,
        **kw,
    )
    return p.returncode, p.stdout, p.stderr


def shop(name="shop", names=("apple", "pear", "plum", "lemon")):
    root = folder(TMP / f"photos-{name}", names)
    code, out, err = cli("fit", root, "-o", TMP / name, "--encoder", "pixels", "-q")
    assert code == 0, err
    return TMP / name, root


def classes_of(model):
    return json.loads((Path(model) / "config.json").read_text())["classes"]


def features(name, X, y=None, **more):
    from mixtura.features.imports import from_npz, save

    a = dict(embedding=X, **more)
    if y is not None:
        a["label"] = y
    np.savez(TMP / "x.npz", **a)
    shutil.rmtree(TMP / name, ignore_errors=True)
    save(from_npz(TMP / "x.npz", encoder="net", label=None if y is None else "label"), TMP / name)
    return TMP / name


class Server:
    def __init__(self, catalog, *args):
        self.p = subprocess.Popen(
            [
                PY,
                "-m",
                "mixtura",
                "serve",
                str(catalog),
                "--port",
                "0",
                "--json",
                "--reads",
                "1000",
                "--writes",
                "1000",
                *args,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(ENV, MIXTURA_TOKEN=TOKEN),
        )
        t = ""
        while True:
            line = self.p.stdout.readline()
            if not line:
                raise RuntimeError(self.p.stderr.read())
            t += line
            try:
                self.info = json.loads(t)
                break
            except ValueError:
                pass
        self.port = int(self.info["address"].rsplit(":", 1)[1])

    def req(self, method, path, body=None, headers=None, token=False):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        h = dict(headers or {})
        if token:
            h["Authorization"] = "Bearer " + TOKEN
        c.request(method, path, body=body, headers=h)
        r = c.getresponse()
        d = r.read()
        c.close()
        return r.status, dict(r.getheaders()), d

    def __enter__(self):
        return self

    def __exit__(self, *a):
        self.p.send_signal(signal.SIGINT)
        try:
            self.p.wait(20)
        except subprocess.TimeoutExpired:
            self.p.kill()


_bad = []


def check(what, ok, saw=""):
    print(("  ok   " if ok else "  FAIL ") + what + (f"   [saw: {saw}]" if saw != "" else ""), flush=True)
    if not ok:
        _bad.append(what)


def end():
    print("FAIL" if _bad else "PASS")
    sys.exit(1 if _bad else 0)


def caught(f):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return f()
    except Exception as e:
        return e

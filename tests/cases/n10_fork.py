"""pytorch/pytorch#17199, #41197, #89693: a forked worker (celery, gunicorn --preload, multiprocessing) after a fit in the parent."""

import os

os.environ["OMP_NUM_THREADS"] = "2"
os.environ["MKL_NUM_THREADS"] = "2"
import signal
import subprocess

from common import ENV, PY, TMP, check, end

code = """
import os, sys; sys.path.insert(0, os.environ["PYTHONPATH"])
import multiprocessing as mp, numpy as np
from mixtura import MixtureClassifier
r = np.random.RandomState(0); X = r.randn(20000, 200); y = np.arange(20000) % 5
def work(_): return float(MixtureClassifier("tied").fit(X, y).score(X[:2000], y[:2000]))
if __name__ == "__main__":
    work(0)
    with mp.get_context("fork").Pool(2) as p: print(p.map(work, range(2)))
"""
(TMP / "f.py").write_text(code)
p = subprocess.Popen(
    [PY, str(TMP / "f.py")],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env=dict(ENV, OMP_NUM_THREADS="2", MKL_NUM_THREADS="2"),
    start_new_session=True,
)
try:
    out, _ = p.communicate(timeout=60)
    check("children answer", p.returncode == 0, out.strip()[-200:])
except subprocess.TimeoutExpired:
    os.killpg(p.pid, signal.SIGKILL)
    p.wait()
    check("children answer within 60 s (5 s with one thread)", False, "no answer in 60 s")
end()

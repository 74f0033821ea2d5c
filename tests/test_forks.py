"""A forked child computes after its parent has: in fresh processes, because threads of this one would tell nothing."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os
import sys
{first}
import numpy as np
from mixtura import GaussianMixture, MixtureClassifier

x = np.random.default_rng(0).normal(size=(6000, 32))
y = np.arange(len(x)) % 3

def work():
    MixtureClassifier("tied", false_reject_rate=None, shrinkage=0.1).fit(x, y).predict(x)
    GaussianMixture(2, covariance_type="diag", random_state=0, max_iter=1).fit(x)

work()
child = os.fork()
if not child:
    work()
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
SKLEARN_FIRST = """
import numpy as np
from sklearn.cluster import KMeans
KMeans(2, n_init=1).fit(np.random.default_rng(0).normal(size=(5000, 8)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("first", ["", SKLEARN_FIRST], ids=["mixtura first", "scikit-learn first"])
def test_a_forked_child_computes(first):
    threads = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    program = [sys.executable, "-W", "ignore", "-c", PROGRAM.format(first=first)]
    subprocess.run(program, env=os.environ | threads, timeout=120, check=True)


def test_the_package_loads_no_numeric_library_for_it():
    said = "import mixtura, sys; print(sorted({'torch', 'threadpoolctl', 'numpy'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

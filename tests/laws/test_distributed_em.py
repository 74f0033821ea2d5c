"""EM over three real processes equals EM over all rows."""

import subprocess
import sys

import pytest
import torch

from mixtura.core import em, init
from mixtura.core.covariance import FAMILIES
from mixtura.core.em import Chunks
from mixtura.testing.covariance_laws import assert_same, clusters

WORKER = """
import sys
import torch
import torch.distributed as group
from mixtura.core import em, init
from mixtura.core.em import Chunks
from mixtura.testing.covariance_laws import clusters

folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
group.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3)

def reduce(tensor):
    total = tensor.contiguous().clone()
    group.all_reduce(total)
    return total

x, labels = clusters()
found = {}
for family in sys.argv[3:]:
    mixture = init.from_labels(family, x, labels, 5, rank=2)
    fit = em.fit(mixture, Chunks(x.tensor_split([100, 350])[rank], size=64), reduce=reduce, steps=5, tolerance=0.0)
    found[family] = fit.mixture.state() | {"trace": torch.tensor(fit.trace, dtype=torch.float64)}
torch.save(found, f"{folder}/rank{rank}.pt")
group.destroy_process_group()
"""


@pytest.mark.slow
def test_three_processes_make_the_whole(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", WORKER, str(tmp_path)]
    running = [
        subprocess.Popen([*command, str(rank), *FAMILIES], stderr=subprocess.PIPE, text=True) for rank in range(3)
    ]
    errors = [process.communicate(timeout=240)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], errors
    x, labels = clusters()
    for family in FAMILIES:
        whole = em.fit(init.from_labels(family, x, labels, 5, rank=2), Chunks(x), steps=5, tolerance=0.0)
        for rank in range(3):
            state = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)[family]
            trace = state.pop("trace")
            assert_same(type(whole.mixture).from_state(family, state), whole.mixture, 1e-12)
            torch.testing.assert_close(trace, torch.tensor(whole.trace, dtype=torch.float64), rtol=0, atol=1e-12)

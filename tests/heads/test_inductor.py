"""Heads and families compiled as wholes, in a process without checks of shapes, which cannot be traced."""

import os
import shutil
import subprocess
import sys

import pytest

WORKER = """
import json, sys
import torch
from mixtura.core.covariance import FAMILIES
from mixtura.heads import HEADS, VARIANTS
from mixtura.names import find
from mixtura.testing.score_laws import Scorer
from mixtura.testing.head_laws import N_CLASSES, labeled

class All(torch.nn.ModuleList):
    def forward(self, x):
        return [module(x) for module in self]

torch.set_num_threads(1)
x, labels = labeled()
variants = [*VARIANTS.values(), *((name, {}) for name in HEADS if name != "random_projection")]
variants += [("gaussian", {"family": family, "components": 2, "rank": 2}) for family in FAMILIES]
variants += [("random_projection", {"width": 20}), ("gaussian", {"projection": "pca", "width": 3})]
modules = All(find(HEADS, name).from_rows(x, labels, N_CLASSES, **options) for name, options in variants)
modules.append(find(HEADS, "gaussian").from_rows(x, labels, N_CLASSES, family="lowrank").bfloat16())
for family in FAMILIES.values():
    covariance = family.initial(5, 4, 2)
    modules.append(Scorer(family.score, covariance.operands(torch.randn(5, 4))))
with torch.no_grad():
    compiled = torch.compile(modules.eval(), backend=sys.argv[1], fullgraph=True)
    for found, expected in zip(compiled(x), modules(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-2 if found.dtype == torch.bfloat16 else 1e-4, atol=1e-4)
print(json.dumps(len(modules)))
"""


@pytest.mark.slow
def test_every_head_and_family_compiles_as_a_whole():
    """By the C++ backend where there is a compiler."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    command = [sys.executable, "-W", "ignore", "-c", WORKER, "inductor" if compiler else "eager"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 30

"""The law kit over every family in the table; a new family is held to it without a line here."""

import torch

from mixtura.core import init
from mixtura.core.covariance import FAMILIES, NO_PRIOR
from mixtura.testing.covariance_laws import CovarianceLaws


def fitted_lowrank(self, x, labels, floor=0.0, prior=NO_PRIOR, weight=None):
    return init.from_labels("lowrank", x, labels, int(labels.max()) + 1, floor, prior, weight, rank=2)


def diagonal(matrix):
    return torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1))


def sphere(matrix):
    scale = matrix.diagonal(dim1=-2, dim2=-1).mean(-1)
    return scale[..., None, None] * torch.eye(matrix.shape[-1], dtype=matrix.dtype)


SPECIAL = {
    "spherical": {"sklearn_type": "spherical", "project": staticmethod(sphere)},
    "diagonal": {"sklearn_type": "diag", "project": staticmethod(diagonal)},
    "lowrank": {"fitted": fitted_lowrank, "exact": False},
    "tied": {"sklearn_type": "tied"},
    "full": {"sklearn_type": "full"},
}

for name, family in FAMILIES.items():
    kind = f"Test{family.__name__}"
    globals()[kind] = type(kind, (CovarianceLaws,), {"family": family, **SPECIAL.get(name, {})})


def test_the_kit_runs_without_pytest():
    assert len(globals()["TestDiagonal"]().run()) >= 20


def test_a_family_that_breaks_a_law_is_caught():
    class Careless(FAMILIES["diagonal"]):
        @staticmethod
        def score_tiled(operands, x):
            return FAMILIES["diagonal"].score_tiled(operands, x) + 1e-6

    broken = type("Broken", (CovarianceLaws,), {"family": Careless})
    for law in ("test_log_density_is_torchs", "test_density_integrates_to_one"):
        try:
            getattr(broken(), law)()
        except AssertionError:
            continue
        raise AssertionError(f"{law} let a wrong density through")

"""The scores in the table: found by name, row by row, higher for more known."""

import pytest
import torch

from mixtura.names import find
from mixtura.scores import SCORES


@pytest.mark.parametrize("name", SCORES)
def test_every_score_rises_with_the_evidence_and_treats_rows_alone(name):
    score = find(SCORES, name)
    generator = torch.Generator().manual_seed(0)
    log_density, background = torch.randn(2, 40, generator=generator, dtype=torch.float64)
    whole = score(log_density, background)
    assert (score(log_density + 1, background) > whole).all()
    assert torch.equal(score(log_density[:1], background[:1]), whole[:1])


def test_relative_cancels_what_is_unusual_for_all_alike():
    generator = torch.Generator().manual_seed(0)
    log_density, background, light = torch.randn(3, 40, generator=generator, dtype=torch.float64)
    relative, evidence = find(SCORES, "relative"), find(SCORES, "evidence")
    torch.testing.assert_close(relative(log_density + light, background + light), relative(log_density, background))
    assert torch.equal(evidence(log_density, background), log_density)

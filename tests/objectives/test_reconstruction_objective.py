"""Differences of photos and reconstructions against those of torch; they are means, whatever is summed over."""

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from mixtura.errors import UsageError
from mixtura.objectives.reconstruction import Reconstruction

ORACLES = {"mse": functional.mse_loss, "bce": functional.binary_cross_entropy, "l1": functional.l1_loss}


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    photos = torch.rand(5, 3, 8, 6, generator=generator)
    photos[0] = photos[0].round()
    return 3 * torch.randn(5, 3, 8, 6, generator=generator), photos


@pytest.mark.parametrize("pixels", ORACLES)
def test_it_is_the_one_of_torch(pair, pixels):
    logits, photos = pair
    assert_close(Reconstruction(pixels)(logits, photos), ORACLES[pixels](logits.sigmoid(), photos), rtol=1e-5, atol=0)


@pytest.mark.parametrize("pixels", ORACLES)
def test_it_is_a_mean_over_photos_and_pixels(pair, pixels):
    logits, photos = pair
    objective = Reconstruction(pixels)
    loss = objective(logits, photos)
    assert_close(objective(logits.repeat(3, 1, 2, 2), photos.repeat(3, 1, 2, 2)), loss)
    weight = torch.tensor([0.0, 2.0, 2.0, 0.0, 0.0])
    assert_close(objective(logits, photos, weight=weight), objective(logits[1:3], photos[1:3]))
    assert_close(objective.of_each(logits, photos).mean(), loss)


def test_a_logit_of_any_size_has_a_finite_loss_and_a_gradient():
    """A reconstruction that is rounded to 0 or 1 would have an infinite cross-entropy."""
    logits = torch.tensor([[[[200.0]], [[-200.0]], [[0.0]]]], dtype=torch.bfloat16, requires_grad=True)
    loss = Reconstruction("bce")(logits, torch.tensor([[[[0.0]], [[1.0]], [[0.5]]]]))
    loss.backward()
    assert loss.dtype == torch.float32 and float(loss.detach()) == pytest.approx((400 + 0.6931) / 3, rel=1e-4)
    assert float(logits.grad.float().abs().max()) == pytest.approx(1 / 3, rel=1e-2)


def test_another_name_is_refused():
    with pytest.raises(UsageError, match=r"compared by 'sum'. Use one of: mse, bce, l1"):
        Reconstruction.from_options("sum")

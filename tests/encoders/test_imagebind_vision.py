"""ImageBind's vision branch, in a package of the same layout."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mixtura.encoders.common import hash_tensors
from mixtura.encoders.imagebind import ImageBind
from mixtura.encoders.imagebind_vision import ImageBindVision
from mixtura.encoders.torchvision_repair import import_timm
from mixtura.errors import DataError, MissingExtra, NoInput

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # as published


def smooth(width, height):
    """A photo without sharp edges, on which filters at the border of a square agree."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def test_it_calls_the_package_with_a_scaled_photo(imagebind_weights):
    encoder = ImageBindVision(weights=imagebind_weights)
    batch = encoder.prepare(smooth(300, 260))[None]
    weights = torch.load(imagebind_weights, weights_only=True)
    x = 40 * ((batch / 255 - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(STD).reshape(3, 1, 1)).mean((2, 3))
    for layer in ("modality_trunks.vision.blocks.0", "modality_trunks.vision.blocks.1", "modality_heads.vision"):
        x = x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
    torch.testing.assert_close(encoder.encode(batch), x / x.norm(), rtol=1e-4, atol=1e-5)
    assert (encoder.dimension, encoder.size, encoder.identity["size"]) == (24, 224, "224 px")
    assert encoder.stages == ("modality_trunks.vision.blocks.0", "modality_trunks.vision.blocks.1")


@pytest.mark.parametrize("shape", [(300, 260), (224, 224), (90, 400), (640, 200)])
def test_a_photo_is_prepared_as_the_published_steps_do(imagebind_weights, shape):
    """Within two gray levels of the 256 on the mean: a cut between pixels moves the middle by up to half of one."""
    import_timm()
    from torchvision import transforms

    bicubic = transforms.InterpolationMode.BICUBIC
    published = transforms.Compose([transforms.Resize(224, bicubic), transforms.CenterCrop(224)])
    found = ImageBindVision(weights=imagebind_weights).prepare(smooth(*shape)).float()
    expected = torch.from_numpy(np.asarray(published(smooth(*shape))).transpose(2, 0, 1).astype(np.float32))
    assert (found - expected).abs().mean() < 2


def test_both_branches_of_one_file_keep_their_own_tensors(imagebind_weights):
    vision, audio = ImageBindVision(weights=imagebind_weights), ImageBind(weights=imagebind_weights)
    assert all(".vision." in name for name in vision.network().state_dict())
    assert vision.identity["weights"] == audio.identity["weights"]
    assert vision.identity["weights"] == hash_tensors(torch.load(imagebind_weights, weights_only=True))
    assert vision.fingerprint != audio.fingerprint


def test_what_is_missing_is_told(imagebind_weights, tmp_path):
    with pytest.raises(NoInput, match="own weights cannot be had"):
        ImageBindVision()
    with pytest.raises(NoInput, match="missing or unreadable"):
        ImageBindVision(weights=tmp_path / "none.pth")
    state = ImageBind(weights=imagebind_weights).network().state_dict()
    save_file(state, tmp_path / "audio.safetensors")
    with pytest.raises(DataError, match="does not fit the network"):
        ImageBindVision(weights=tmp_path / "audio.safetensors")


def test_a_package_that_is_not_installed_is_told():
    with pytest.raises(MissingExtra, match=r"CC-BY-NC-SA.*mixtura data import"):
        ImageBindVision()

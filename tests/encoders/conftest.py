"""Small timm weights on disk, made once."""

import pytest
import torch
from safetensors.torch import save_file

from mixtura.encoders.torchvision_repair import import_timm


@pytest.fixture(scope="session")
def resnet_weights(tmp_path_factory):
    """Weights of timm's smallest residual network, random, with its last layer."""
    path = tmp_path_factory.mktemp("weights") / "test_resnet.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(import_timm().create_model("test_resnet", pretrained=False).state_dict(), path)
    return path

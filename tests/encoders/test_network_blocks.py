"""The blocks of every encoder's network, by the kit that ships; and networks whose blocks are not so plain."""

import pytest
import torch
from torch import nn

from mixtura.encoders import ENCODERS
from mixtura.encoders.autoencoder import Autoencoder
from mixtura.encoders.cnn import Cnn
from mixtura.encoders.hf import HuggingFace
from mixtura.encoders.imagebind_vision import ImageBindVision
from mixtura.encoders.lite0 import Lite0
from mixtura.encoders.own import Own
from mixtura.encoders.resnet12 import ResNet12
from mixtura.encoders.resnet32 import ResNet32
from mixtura.encoders.sounds import SoundNetwork
from mixtura.encoders.stages import BIAS, NORM, WEIGHT, kinds_of, stages_of
from mixtura.encoders.timm import Timm
from mixtura.encoders.tiny import Tiny
from mixtura.errors import UsageError
from mixtura.interfaces import TrainableEncoder
from mixtura.names import find
from mixtura.testing.encoder_laws import TrainableEncoderLaws


class TestLite0(TrainableEncoderLaws):
    n_blocks = 8

    def build(self, **options):
        return Lite0(**{"size": 48} | options)


class TestTiny(TrainableEncoderLaws):
    drawn = False  # it is as useful drawn as it could be trained, and its identity says no more than its weights

    def build(self, **options):
        return Tiny(**{"size": 32} | options)


class TestTimm(TrainableEncoderLaws):
    n_blocks = 5

    def build(self, **options):
        given = {} if "seed" in options else {"weights": self.weights}
        return Timm("test_resnet", **{"size": 48} | given | options)

    @pytest.fixture(autouse=True)
    def _weights(self, resnet_weights):
        self.weights = resnet_weights


class TestTimmWithASmallStem(TrainableEncoderLaws):
    n_blocks = 5

    def build(self, **options):
        given = {} if {"seed", "weights"} & set(options) else {"seed": 0}
        return Timm("resnet18", **{"size": 32, "stem": "small"} | given | options)


class TestHuggingFace(TrainableEncoderLaws):
    n_blocks = 3

    def build(self, **options):
        return HuggingFace(str(self.folder), **{"size": 48} | options)

    @pytest.fixture(autouse=True)
    def _folder(self, vit_folder):
        self.folder = vit_folder


class TestCnn(TrainableEncoderLaws):
    n_blocks = 4

    def build(self, **options):
        return Cnn(**{"size": 48} | options)


class TestResNet12(TrainableEncoderLaws):
    n_blocks = 4

    def build(self, **options):
        return ResNet12(**{"size": 16} | options)


class TestResNet32(TrainableEncoderLaws):
    n_blocks = 4

    def build(self, **options):
        return ResNet32(**{"size": 16} | options)


class TestAutoencoder(TrainableEncoderLaws):
    n_blocks = 4

    def build(self, **options):
        return Autoencoder(**{"size": 48} | options)


class TestOwn(TrainableEncoderLaws):
    n_blocks = 4
    drawn = False  # it is trained

    def build(self, **options):
        return Own(str(self.folder), **options)

    @pytest.fixture(autouse=True)
    def _folder(self, own_folder):
        self.folder = own_folder


class TestImageBindVision(TrainableEncoderLaws):
    tap = None
    drawn = False

    def build(self, **options):
        return ImageBindVision(**{"weights": self.weights} | options)

    @pytest.fixture(autouse=True)
    def _weights(self, imagebind_weights):
        self.weights = imagebind_weights


LAWFUL = [Lite0, Tiny, Timm, HuggingFace, Cnn, ResNet12, ResNet32, Autoencoder, Own, ImageBindVision]


def test_every_trainable_encoder_of_the_table_is_under_the_law():
    classes = {find(ENCODERS, name) for name in ENCODERS}
    trainable = {kind for kind in classes if hasattr(kind, "network") and not issubclass(kind, SoundNetwork)}
    assert trainable == set(LAWFUL)


@pytest.mark.parametrize("kind", ["clip", "siglip", "dinov2", "dinov3"])
def test_every_tower_has_blocks(hf_towers, kind):
    encoder = HuggingFace(str(hf_towers[kind]))
    stages = stages_of(encoder, encoder.network())
    assert len(stages) == 1 + len(encoder.stages) >= 3


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("test_vit", 7), ("test_convnext", 5), ("test_efficientnet", 6), ("densenet121", 4), ("test_mambaout", 5)],
)
def test_networks_of_timm_have_the_blocks_that_it_lists(name, blocks):
    encoder = Timm(name, size=None if name == "test_vit" else 64, seed=0)
    assert isinstance(encoder, TrainableEncoder)
    assert len(stages_of(encoder, encoder.network())) == blocks


def test_a_network_with_jumps_over_blocks_is_one_block():
    """High resolution networks hand several maps from stage to stage."""
    encoder = Timm("hrnet_w18_small", size=64, seed=0)
    network = encoder.network()
    stages = stages_of(encoder, network)
    assert stages.names == (encoder.name,) and stages.entries == ()
    assert set(stages.parameters[0]) == set(dict(network.network.named_parameters()))


class _Jumps(nn.Module):
    """The second stage reads the first one's result and the photo itself."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, batch):
        x = self.one(batch.float() / 255)
        return self.three(self.two(x) + x).mean((2, 3))


class _Jumping(Tiny):
    stages = ("two", "three")

    def network(self):
        return _Jumps().train()


def test_blocks_that_are_not_the_network_are_noticed():
    encoder = _Jumping()
    stages = stages_of(encoder, encoder.network())
    assert stages.names == ("tiny",) and len(stages.parameters[0]) == 6


def test_blocks_that_are_not_there():
    encoder = Cnn(size=32)
    network = encoder.network().eval()
    stages, photos = stages_of(encoder, network), torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    kept = stages.run(network, photos, 0, 2)
    for x, first, last in [(photos, 1, None), (kept, 0, 2), (photos, 0, 0), (photos, 0, 9), (kept, 3, 2)]:
        with pytest.raises(UsageError, match="cannot be run on"):
            stages.run(network, x, first, last)


def test_kinds_of_parameters(vit_folder):
    kinds = kinds_of(Lite0(size=32).network())
    assert {name for name, kind in kinds.items() if kind == WEIGHT} == {n for n in kinds if "conv" in n}
    assert BIAS not in kinds.values()
    kinds = kinds_of(HuggingFace(str(vit_folder)).network())
    assert kinds["embeddings.cls_token"] == kinds["embeddings.position_embeddings"] == BIAS
    assert kinds["layernorm.weight"] == kinds["layernorm.bias"] == NORM
    assert kinds["embeddings.patch_embeddings.projection.weight"] == WEIGHT
    assert kinds["embeddings.patch_embeddings.projection.bias"] == BIAS

"""Small networks on disk: of timm, SoundNet's shapes, CLAP, and a package of ImageBind's layout."""

import sys

import pytest
import torch
from safetensors.torch import save_file

from mixtura.encoders.cnn import Cnn
from mixtura.encoders.common import hash_tensors
from mixtura.encoders.own import write_encoder
from mixtura.encoders.torchvision_repair import import_timm, import_transformers


@pytest.fixture(scope="session")
def resnet_weights(tmp_path_factory):
    """Weights of timm's smallest residual network, random, with its last layer."""
    path = tmp_path_factory.mktemp("weights") / "test_resnet.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(import_timm().create_model("test_resnet", pretrained=False).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def own_folder(tmp_path_factory):
    """The folder of a small network after a step of training, as ``mixtura train`` leaves it."""
    folder, encoder = tmp_path_factory.mktemp("own"), Cnn(size=48, filters=2)
    network = encoder.network()
    photos = torch.randint(0, 256, (4, 3, 48, 48), generator=torch.Generator().manual_seed(0))
    network(photos).square().mean().backward()
    torch.optim.SGD(network.parameters(), 0.1).step()
    write_encoder(folder, encoder, network, trained=("blocks.3",))
    return folder


LAYERS = {
    "conv1": (64, 1, 16),
    "conv2": (32, 16, 32),
    "conv3": (16, 32, 64),
    "conv4": (8, 64, 128),
    "conv5": (4, 128, 256),
}


@pytest.fixture(scope="session")
def soundnet_tensors():
    """Random tensors of SoundNet's shapes, convolutions as (out, in, width)."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, (width, into, out) in LAYERS.items():
        tensors[f"{name}.weights"] = torch.randn(out, into, width, generator=generator) / (into * width) ** 0.5
        for part in ("biases", "mean", "beta"):
            tensors[f"{name}.{part}"] = torch.randn(out, generator=generator) / 4
        for part in ("var", "gamma"):
            tensors[f"{name}.{part}"] = torch.rand(out, generator=generator) + 0.5
    return tensors


@pytest.fixture
def soundnet_weights(tmp_path, monkeypatch, soundnet_tensors):
    """A file of them, which the encoder is made to take for the published one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("mixtura.encoders.soundnet_weights.TENSORS_SHA256", hash_tensors(soundnet_tensors))
    path = tmp_path / "sound8.safetensors"
    save_file(soundnet_tensors, path)
    return path


@pytest.fixture(scope="session")
def clap_folders(tmp_path_factory):
    """Tiny CLAPs without and with fusion, random, saved as the published ones are; clips of one second."""
    transformers = import_transformers()

    def save(folder, fusion):
        config = transformers.ClapAudioConfig(
            window_size=8,
            num_classes=4,
            hidden_size=32,
            projection_dim=16,
            depths=[1, 1],
            num_attention_heads=[2, 2],
            patch_embeds_hidden_size=16,
            enable_fusion=fusion,
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            transformers.ClapAudioModelWithProjection(config).save_pretrained(folder)
        truncation = "fusion" if fusion else "rand_trunc"
        transformers.ClapFeatureExtractor(max_length_s=1, truncation=truncation).save_pretrained(folder)
        return folder

    return {name: save(tmp_path_factory.mktemp(name), name == "fused") for name in ("plain", "fused")}


VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
WORDS = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 50}
ENDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


@pytest.fixture(scope="session")
def hf_towers(tmp_path_factory):
    """Tiny image networks of transformers, random, saved as the published ones are; 20 to 50 thousand numbers each."""
    t = import_transformers()
    wide = VIT | {"intermediate_size": 64}
    square, crop = {"height": 32, "width": 32}, {"crop_size": {"height": 32, "width": 32}}
    projected = {"projection_dim": 16}
    both = t.CLIPConfig(vision_config=wide | projected, text_config=WORDS | ENDS | projected, **projected)
    pair = t.SiglipConfig(vision_config=wide, text_config=WORDS | ENDS)
    made = {
        "clip_tower": (t.CLIPVisionModelWithProjection, t.CLIPVisionConfig(**wide, **projected), t.CLIPImageProcessor),
        "clip": (t.CLIPModel, both, t.CLIPImageProcessor),
        "siglip": (t.SiglipModel, pair, t.SiglipImageProcessor),
        "siglip_tower": (t.SiglipVisionModel, t.SiglipVisionConfig(**wide), t.SiglipImageProcessor),
        "dinov2": (t.Dinov2Model, t.Dinov2Config(**VIT), t.BitImageProcessor),
        "dinov3": (t.DINOv3ViTModel, t.DINOv3ViTConfig(**wide, num_register_tokens=2), t.DINOv3ViTImageProcessor),
        "vit": (t.ViTModel, t.ViTConfig(**wide), t.ViTImageProcessor),
    }
    folder = tmp_path_factory.mktemp("towers")
    for name, (network, config, processor) in made.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network(config).save_pretrained(folder / name)
        cut = processor in (t.CLIPImageProcessor, t.BitImageProcessor)
        sizes = {"size": {"shortest_edge": 36}} | crop if cut else {"size": square}
        processor(**sizes).save_pretrained(folder / name)
    return {name: folder / name for name in made}


@pytest.fixture(scope="session")
def vit_folder(hf_towers):
    """One of them."""
    return hf_towers["vit"]


FAKE_DATA = """
import torch


def waveform2melspec(waveform, sample_rate, num_mel_bins, target_length):
    assert sample_rate == 16000 and waveform.shape == (1, 32000)
    waveform -= waveform.mean()  # in place, as the published function does
    energy = torch.nn.functional.interpolate(30 * waveform.abs()[None], size=target_length)
    return energy.expand(1, num_mel_bins, target_length) * torch.linspace(0, 1, num_mel_bins)[None, :, None]
"""
FAKE_MODEL = """
import torch
from types import SimpleNamespace

ModalityType = SimpleNamespace(AUDIO="audio", VISION="vision")


class Trunk(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.Linear(6, 6))

    def forward(self, x):
        return self.blocks(x)


class ImageBindModel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        kinds = {"text": torch.nn.Linear(5, 7), "audio": torch.nn.Linear(128, 24), "vision": Trunk()}
        self.modality_trunks = torch.nn.ModuleDict(kinds)
        heads = {"text": torch.nn.Linear(7, 24), "audio": torch.nn.Dropout(0.5), "vision": torch.nn.Linear(6, 24)}
        self.modality_heads = torch.nn.ModuleDict(heads)

    def forward(self, inputs):
        (kind,) = inputs
        trunk, head = self.modality_trunks[kind], self.modality_heads[kind]
        if kind == "vision":
            return {kind: torch.nn.functional.normalize(head(trunk(40 * inputs[kind].mean((2, 3)))), dim=-1)}
        return {kind: torch.tanh(head(trunk(inputs[kind].mean(3)[:, 0]))) * 3}


def imagebind_huge(pretrained=False):
    if pretrained:
        raise FileNotFoundError(".checkpoints/imagebind_huge.pth")
    return ImageBindModel()
"""


@pytest.fixture
def imagebind_weights(tmp_path, monkeypatch):
    """A package of ImageBind's layout on the path, and a weight file that fits it."""
    package = tmp_path / "site" / "imagebind"
    (package / "models").mkdir(parents=True)
    for name, text in {
        "__init__": "",
        "data": FAKE_DATA,
        "models/__init__": "",
        "models/imagebind_model": FAKE_MODEL,
    }.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(package.parent)
    for name in ("imagebind", "imagebind.data", "imagebind.models", "imagebind.models.imagebind_model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    generator = torch.Generator().manual_seed(0)
    weights = tmp_path / "imagebind_huge.pth"
    trunks = {"audio.weight": (24, 128), "audio.bias": (24,), "text.weight": (7, 5), "text.bias": (7,)}
    trunks |= {"vision.blocks.0.weight": (6, 3), "vision.blocks.0.bias": (6,)}
    trunks |= {"vision.blocks.1.weight": (6, 6), "vision.blocks.1.bias": (6,)}
    shapes = {f"modality_trunks.{name}": shape for name, shape in trunks.items()}
    for name, width in (("text", 7), ("vision", 6)):
        shapes |= {f"modality_heads.{name}.weight": (24, width), f"modality_heads.{name}.bias": (24,)}
    torch.save({name: torch.randn(shape, generator=generator) / 8 for name, shape in shapes.items()}, weights)
    yield weights
    for name in [name for name in sys.modules if name.partition(".")[0] == "imagebind"]:
        del sys.modules[name]

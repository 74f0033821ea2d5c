"""What holds of every encoder whose network can be trained."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mixtura.encoders import ENCODERS
from mixtura.encoders.clap import Clap
from mixtura.encoders.common import split_name
from mixtura.encoders.hf import HuggingFace
from mixtura.encoders.own import Own
from mixtura.encoders.sounds import Clips
from mixtura.errors import DataError
from mixtura.interfaces import Encoder, SoundEncoder, TrainableEncoder, TrainableSoundEncoder
from mixtura.names import find

DRAWN = ["cnn", "resnet12", "resnet32", "autoencoder"]
PHOTOS = ["lite0", "tiny", "timm:test_resnet@{weights}", "hf:{vit}", "own:{own}", "imagebind-vision", *DRAWN]
SOUNDS = ["soundnet", "clap:{clap}", "imagebind"]
NAMES = PHOTOS + SOUNDS
TAPPED = [
    "lite0 auto",
    "tiny last-2",
    "timm:test_resnet@{weights} auto",
    "hf:{vit} last-1",
    "own:{own} last-2",
    "cnn auto",
]
NOTHING_TO_TRAIN = {"pixels", "logmel"}
FIRST = {  # a name of the original network
    "lite0": "blocks.0.0.bn1.running_mean",
    "tiny": "first",
    "timm": "conv1.0.weight",
    "hf": "embeddings.patch_embeddings.projection.weight",
    "own": "blocks.0.0.0.weight",
    "cnn": "blocks.0.0.0.weight",
    "resnet12": "blocks.0.path.0.1.running_var",
    "resnet32": "stages.1.0.path.0.0.weight",
    "autoencoder": "blocks.0.0.weight",
    "soundnet": "conv1.convolution.weight",
    "clap": "audio_model.audio_encoder.batch_norm.running_var",
    "imagebind": "modality_trunks.audio.weight",
    "imagebind-vision": "modality_trunks.vision.blocks.0.weight",
}


def make_named(request, name):
    """The encoder's key, and a function that makes a small one with further options; taps come behind the name."""
    name, _, taps = name.partition(" ")
    fixture = request.getfixturevalue
    places = {
        "weights": fixture("resnet_weights"),
        "vit": fixture("vit_folder"),
        "own": fixture("own_folder"),
        "clap": fixture("clap_folders")["plain"],
    }
    key, options = split_name(name.format(**places))
    options |= {"taps": taps} if taps else {}
    if name in PHOTOS:
        options |= {"size": 48}
        options |= {"weights": fixture("imagebind_weights")} if key == "imagebind-vision" else {}
    elif key != "clap":
        options |= {"weights": fixture(f"{key}_weights")}
    return key, lambda **more: find(ENCODERS, key)(**options | more)


@pytest.fixture(params=NAMES + TAPPED)
def key_and_make(request):
    return make_named(request, request.param)


@pytest.fixture
def make(key_and_make):
    return key_and_make[1]


def photos(encoder, size=48, count=6):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def batch_of(encoder):
    """What its network takes: photos, or clips of sounds, here one a sound."""
    if isinstance(encoder, Encoder):
        return photos(encoder)
    waves = np.random.default_rng(0).standard_normal((6, encoder.sample_rate)) / 5
    loudness = np.linspace(np.linspace(0, 1, 6), 1, encoder.sample_rate).T
    return torch.cat([encoder.prepare(wave) for wave in (loudness * waves).astype(np.float32)])


def encode(encoder, batch):
    """The vectors of such a batch."""
    return encoder.encode(batch if isinstance(encoder, Encoder) else batch[:, None])


def train_a_step(network, batch):
    """One step of gradient descent; the loss is the scatter of the vectors and their mean."""
    loss = network(batch).square().mean() + network(batch).std(0).mean()
    loss.backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    torch.optim.SGD(network.parameters(), 0.1).step()
    return gradients


def same(found, expected, tolerance):
    return (found - expected).abs().max() <= tolerance * expected.abs().max()


def test_the_list_covers_the_table(request):
    assert {split_name(name)[0] for name in NAMES} == set(ENCODERS) - NOTHING_TO_TRAIN
    for name in NOTHING_TO_TRAIN:
        encoder = find(ENCODERS, name)()
        assert isinstance(encoder, Encoder | SoundEncoder)
        assert not isinstance(encoder, TrainableEncoder | TrainableSoundEncoder)


def test_in_evaluation_it_computes_what_the_encoder_does(make):
    """To 1e-4 of the largest number: folded batch norms round otherwise, in float32."""
    encoder = make()
    assert isinstance(encoder, TrainableEncoder if isinstance(encoder, Encoder) else TrainableSoundEncoder)
    batch = batch_of(encoder)
    with torch.no_grad():
        found = encoder.network().eval()(batch)
    assert found.dtype == torch.float32 and same(found, encode(encoder, batch), 1e-4)


def test_it_is_fresh_and_in_training(make):
    encoder = make()
    one, two = encoder.network(), encoder.network()
    assert all(module.training for module in one.modules())
    assert all(parameter.requires_grad for parameter in one.parameters())
    held = {tensor.data_ptr() for tensor in two.state_dict().values()}
    inner = encoder.inner if isinstance(encoder, Own) else encoder
    held |= {tensor.data_ptr() for tensor in inner._network.state_dict().values()}
    assert not held & {tensor.data_ptr() for tensor in one.state_dict().values()}


def test_a_step_reaches_every_parameter_and_leaves_the_encoder_alone(make):
    encoder = make()
    batch, network = batch_of(encoder), encoder.network()
    vectors, before = encode(encoder, batch), {name: t.clone() for name, t in network.state_dict().items()}
    gradients = train_a_step(network, batch)
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients.values())
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert all(norm.num_batches_tracked > 0 for norm in norms)
    after = network.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert {name for name in after if name.endswith(("running_mean", "running_var"))} <= changed
    assert len(changed) > len(after) / 2
    assert not same(network.eval()(batch).detach(), vectors, 1e-3)
    assert torch.equal(encode(encoder, batch), vectors)
    assert same(encoder.network().eval()(batch).detach(), vectors, 1e-4)


def test_the_batch_norms_are_those_of_the_original(request):
    network = make_named(request, "lite0")[1](size=32).network()
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == 49


def test_trained_weights_are_saved_by_their_own_names_and_come_back(key_and_make, tmp_path):
    key, make = key_and_make
    encoder = make()
    batch, network = batch_of(encoder), encoder.network()
    assert FIRST[key] in network.state_dict()
    train_a_step(network, batch)
    save_file({name: t.contiguous() for name, t in network.state_dict().items()}, tmp_path / "trained.safetensors")
    trained = make(weights=tmp_path / "trained.safetensors")
    assert trained.fingerprint != encoder.fingerprint
    with torch.no_grad():
        expected = network.eval()(batch)
        assert same(encode(trained, batch), expected, 1e-4)
        assert same(trained.network().eval()(batch), expected, 1e-4)


def test_a_network_inside_another_keeps_its_names(make):
    network = make().network()
    whole = nn.ModuleDict({"encoder": network, "head": nn.Linear(2, 2)})
    names = {f"encoder.{name}" for name in network.state_dict()}
    assert names | {"head.weight", "head.bias"} == set(whole.state_dict())
    whole.load_state_dict({name: torch.zeros_like(t) for name, t in whole.state_dict().items()})
    assert not any(t.any() for t in network.state_dict().values())


def test_weights_of_another_network_are_refused(make, tmp_path):
    save_file({"first": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="does not fit the network"):
        make(weights=tmp_path / "other.safetensors")


def test_a_file_that_has_changed_since_is_noticed(request, tmp_path):
    make = make_named(request, "lite0")[1]
    path = tmp_path / "w.safetensors"
    save_file({name: t.contiguous() for name, t in make(size=32).network().state_dict().items()}, path)
    encoder = make(size=32, weights=path)
    save_file({name: t + 1 for name, t in load_file(path).items()}, path)
    with pytest.raises(DataError, match="has changed since"):
        encoder.network()


@pytest.mark.parametrize("kind", ["clip", "siglip", "dinov2", "dinov3"])
def test_every_tower_trains_but_for_tokens_that_no_vector_depends_on(hf_towers, kind):
    encoder = HuggingFace(str(hf_towers[kind]))
    network = encoder.network()
    gradients = train_a_step(network, photos(encoder, 32))
    assert {name.rpartition(".")[2] for name, gradient in gradients.items() if gradient is None} <= {"mask_token"}


# Sounds


@pytest.fixture(params=SOUNDS)
def make_sound(request):
    return make_named(request, request.param)[1]


@pytest.mark.parametrize("normalize", [False, True])
def test_the_vector_of_a_sound_is_the_mean_over_its_clips(make_sound, normalize):
    encoder = make_sound(normalize=normalize, clips=Clips("mean", hop=0.4))
    wave = np.random.default_rng(0).standard_normal(round(5.3 * encoder.sample_rate)).astype(np.float32) / 5
    clips = encoder.prepare(wave)
    with torch.no_grad():
        vectors = encoder.network().eval()(clips)
    assert len(vectors) == len(clips) > 1
    assert normalize == same(vectors.norm(dim=1), torch.ones(len(vectors)), 1e-5)
    assert same(vectors.mean(0), encoder.encode(clips[None])[0], 1e-4)


@pytest.mark.parametrize(("name", "count"), [("soundnet", 5), ("clap:{clap}", 1)])
def test_the_batch_norms_of_sounds_are_those_of_the_original(request, name, count):
    network = make_named(request, name)[1]().network()
    assert sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()) == count


def test_the_fusion_of_clap_stays_as_it_is(clap_folders):
    """It is for long sounds heard at once, and no vector depends on it."""
    encoder = Clap(str(clap_folders["fused"]))
    network = encoder.network()
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    gradients = train_a_step(network, batch_of(encoder))
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, gradient in gradients.items() if gradient is None}
    assert {name.partition("patch_embed.")[2].partition(".")[0] for name in frozen} == {"fusion_model", "mel_conv2d"}
    assert all(torch.equal(before[name], network.get_parameter(name)) for name in frozen)


def test_a_trained_audio_branch_of_imagebind_needs_no_other(request, tmp_path):
    """Its file has the audio branch only; a file of another branch's tensors beside it is taken too."""
    make = make_named(request, "imagebind")[1]
    state = make().network().state_dict()
    assert all(".audio." in name for name in state)
    save_file(state, tmp_path / "audio.safetensors")
    save_file(state | {"modality_heads.text.bias": torch.zeros(24)}, tmp_path / "more.safetensors")
    save_file(state | {"modality_heads.scent.bias": torch.zeros(24)}, tmp_path / "other.safetensors")
    first, more = (make(weights=tmp_path / f"{name}.safetensors") for name in ("audio", "more"))
    batch = batch_of(first)
    assert torch.equal(encode(first, batch), encode(more, batch))
    with pytest.raises(DataError, match="does not fit the network"):
        make(weights=tmp_path / "other.safetensors")

"""What holds of every encoder whose network can be trained."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mixtura.encoders import ENCODERS
from mixtura.encoders.common import split_name
from mixtura.encoders.hf import HuggingFace
from mixtura.errors import DataError
from mixtura.interfaces import Encoder, TrainableEncoder
from mixtura.names import find

NAMES = ["lite0", "tiny", "timm:test_resnet@{weights}", "hf:{vit}"]
NOTHING_TO_TRAIN = {"pixels"}
SOUNDS = {"soundnet", "logmel", "clap", "imagebind"}
FIRST = {  # a name of the original network
    "lite0": "blocks.0.0.bn1.running_mean",
    "tiny": "first",
    "timm": "conv1.0.weight",
    "hf": "embeddings.patch_embeddings.projection.weight",
}


def make_named(request, name):
    key, options = split_name(
        name.format(weights=request.getfixturevalue("resnet_weights"), vit=request.getfixturevalue("vit_folder"))
    )
    return key, lambda **more: find(ENCODERS, key)(**options | more)


@pytest.fixture(params=NAMES)
def key_and_make(request):
    return make_named(request, request.param)


@pytest.fixture
def make(key_and_make):
    return key_and_make[1]


def photos(encoder, size=48, count=6):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


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
    assert {split_name(name)[0] for name in NAMES} == set(ENCODERS) - SOUNDS - NOTHING_TO_TRAIN
    assert isinstance(find(ENCODERS, "pixels")(), Encoder)
    assert not isinstance(find(ENCODERS, "pixels")(), TrainableEncoder)


def test_in_evaluation_it_computes_what_the_encoder_does(make):
    """To 1e-4 of the largest number: folded batch norms round otherwise, in float32."""
    encoder = make(size=48)
    assert isinstance(encoder, TrainableEncoder)
    batch = photos(encoder)
    with torch.no_grad():
        found = encoder.network().eval()(batch)
    assert found.dtype == torch.float32 and same(found, encoder.encode(batch), 1e-4)


def test_it_is_fresh_and_in_training(make):
    encoder = make(size=48)
    one, two = encoder.network(), encoder.network()
    assert all(module.training for module in one.modules())
    assert all(parameter.requires_grad for parameter in one.parameters())
    held = {tensor.data_ptr() for tensor in two.state_dict().values()}
    held |= {tensor.data_ptr() for tensor in encoder._network.state_dict().values()}
    assert not held & {tensor.data_ptr() for tensor in one.state_dict().values()}


def test_a_step_reaches_every_parameter_and_leaves_the_encoder_alone(make):
    encoder = make(size=48)
    batch, network = photos(encoder), encoder.network()
    vectors, before = encoder.encode(batch), {name: t.clone() for name, t in network.state_dict().items()}
    gradients = train_a_step(network, batch)
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients.values())
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert all(norm.num_batches_tracked > 0 for norm in norms)
    after = network.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert {name for name in after if name.endswith(("running_mean", "running_var"))} <= changed
    assert len(changed) > len(after) / 2
    assert not same(network.eval()(batch).detach(), vectors, 1e-3)
    assert torch.equal(encoder.encode(batch), vectors)
    assert same(encoder.network().eval()(batch).detach(), vectors, 1e-4)


def test_the_batch_norms_are_those_of_the_original(request):
    network = make_named(request, "lite0")[1](size=32).network()
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == 49


def test_trained_weights_are_saved_by_their_own_names_and_come_back(key_and_make, tmp_path):
    key, make = key_and_make
    encoder = make(size=48)
    batch, network = photos(encoder), encoder.network()
    assert FIRST[key] in network.state_dict()
    train_a_step(network, batch)
    save_file({name: t.contiguous() for name, t in network.state_dict().items()}, tmp_path / "trained.safetensors")
    trained = make(size=48, weights=tmp_path / "trained.safetensors")
    assert trained.fingerprint != encoder.fingerprint
    with torch.no_grad():
        expected = network.eval()(batch)
        assert same(trained.encode(batch), expected, 1e-4)
        assert same(trained.network().eval()(batch), expected, 1e-4)


def test_a_network_inside_another_keeps_its_names(make):
    network = make(size=48).network()
    whole = nn.ModuleDict({"encoder": network, "head": nn.Linear(2, 2)})
    names = {f"encoder.{name}" for name in network.state_dict()}
    assert names | {"head.weight", "head.bias"} == set(whole.state_dict())
    whole.load_state_dict({name: torch.zeros_like(t) for name, t in whole.state_dict().items()})
    assert not any(t.any() for t in network.state_dict().values())


def test_weights_of_another_network_are_refused(make, tmp_path):
    save_file({"first": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="does not fit the network"):
        make(size=48, weights=tmp_path / "other.safetensors")


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

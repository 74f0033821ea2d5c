"""Networks that begin with drawn weights: the shapes and counts of their papers, sizes, options and other runtimes."""

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from mixtura.encoders.autoencoder import Autoencoder
from mixtura.encoders.cnn import Cnn
from mixtura.encoders.hf import HuggingFace
from mixtura.encoders.lite0 import Lite0
from mixtura.encoders.onnx_graph import to_onnx
from mixtura.encoders.resnet12 import ResNet12
from mixtura.encoders.resnet32 import ResNet32
from mixtura.encoders.timm import Timm
from mixtura.encoders.torchvision_repair import import_timm
from mixtura.errors import DataError, NoInput, UsageError
from mixtura.generators.autoencoder import Decoder
from mixtura.identity import UNTRAINED, blocks_of, is_partly_drawn, options_of
from mixtura.interfaces import ExportableEncoder, TrainableEncoder
from mixtura.pipeline import factory
from mixtura.recipe import resolve
from mixtura.sections import EncoderSection

DRAWN = [Cnn, ResNet12, ResNet32, Autoencoder]


def photos(size, count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def saved(network, path):
    """A weight file of a network."""
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)


def parameters(encoder):
    return sum(parameter.numel() for parameter in encoder.network().parameters())


def convolutions(encoder):
    return [module for module in encoder.network().modules() if isinstance(module, nn.Conv2d)]


def test_resnet12_is_that_of_the_papers():
    """12.4 million parameters (Lee et al. 2019), 12 convolutions of 3 x 3 beside 4 of one position, 640 numbers."""
    encoder = ResNet12(size=84)
    assert round(parameters(encoder) / 1e6, 1) == 12.4
    assert sorted(c.kernel_size[0] for c in convolutions(encoder)) == [1] * 4 + [3] * 12
    assert encoder.encode(photos(84)).shape == (3, 640)
    slopes = {m.negative_slope for m in encoder.network().modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.1}


def test_resnet32_is_that_of_the_paper():
    """0.46 million with a linear layer for ten classes (He et al. 2016, table 6); 31 convolutions."""
    encoder = ResNet32()
    assert round((parameters(encoder) + 64 * 10 + 10) / 1e6, 2) == 0.46
    assert len(convolutions(encoder)) == 31 and encoder.dimension == 64


def test_a_first_block_of_a_stage_of_resnet32_is_a_shortcut_where_its_path_is_zero():
    """Option A: every second position, new channels are zero."""
    block = ResNet32(size=8).network().network.stages[1][0]
    nn.init.zeros_(block.path[2][1].weight)
    nn.init.zeros_(block.path[2][1].bias)
    x = torch.rand(2, 16, 8, 8)
    found = block(x)
    assert found.shape == (2, 32, 4, 4)
    assert torch.equal(found[:, :16], x[:, :, ::2, ::2]) and not found[:, 16:].any()


@pytest.mark.parametrize("filters", [4, 8])
def test_cnn_is_that_of_the_toolkit(filters):
    """Eight 3 x 3 convolutions, 256 numbers, 128 numbers; at 32 px the last maps are 2 x 2 by themselves."""
    encoder = Cnn(size=32, filters=filters, dropout=0.2)
    network = encoder.network()
    widths = [filters * m for m in (1, 2, 4, 4, 8, 8, 16, 16)]
    assert [c.out_channels for c in convolutions(encoder)] == widths
    linear = [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, nn.Linear)]
    assert linear == [(64 * filters, 256), (256, 128)] and encoder.dimension == 128
    counts = [sum(isinstance(m, kind) for m in network.modules()) for kind in (nn.BatchNorm2d, nn.MaxPool2d)]
    assert counts == [8, 4]
    drops = [m.p for m in network.modules() if isinstance(m, nn.Dropout2d | nn.Dropout)]
    assert drops == [0.2] * 9
    maps = network.eval().network.blocks(photos(32).float())
    assert torch.equal(network.network.pool(maps), maps)


@pytest.mark.parametrize(("size", "filters", "dimension"), [(224, 16, 392), (64, 32, 64), (48, 8, 9)])
def test_the_bottleneck_is_that_of_the_toolkit(size, filters, dimension):
    """2 x 14 x 14 numbers at 224 px and 16 filters."""
    encoder = Autoencoder(size=size, filters=filters)
    assert encoder.dimension == dimension == np.prod(encoder.bottleneck)
    with torch.no_grad():
        drawing = factory.decoder_of(encoder)(encoder.encode(photos(size)))
    assert drawing.shape == (3, 3, size, size) and 0 < drawing.min() < drawing.max() < 1


def test_an_autoencoder_learns_to_draw_its_photos():
    """The error falls below that of the mean photo, which a decoder without an encoder can draw."""
    encoder = Autoencoder(size=32)
    coarse = torch.rand(8, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    batch = (255 * nn.functional.interpolate(coarse, size=32)).byte()
    network, decoder = encoder.network(), factory.decoder_of(encoder)
    optimizer = torch.optim.Adam([*network.parameters(), *decoder.parameters()], 0.005)
    target = batch / 255
    for _ in range(200):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(decoder(network(batch)), target)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * float(target.var(0, correction=0).mean())


def test_a_decoder_begins_with_its_seed():
    encoder, random = Autoencoder(size=32), torch.get_rng_state()
    one, same, other = (factory.decoder_of(encoder, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["layers.0.weight"], other["layers.0.weight"])
    assert torch.equal(torch.get_rng_state(), random)


def test_a_decoder_reads_the_bottleneck_and_no_taps():
    encoder = Autoencoder(size=32, taps="last-1")
    decoder = factory.decoder_of(encoder)
    vectors = encoder.encode(photos(32))
    assert decoder.dimension == blocks_of(encoder.identity)[0].stop < encoder.dimension
    with torch.no_grad():
        assert torch.equal(decoder(vectors), decoder(vectors[:, : decoder.dimension]))
    assert isinstance(decoder, Decoder)
    with pytest.raises(UsageError, match="'cnn' has no decoder"):
        factory.decoder_of(Cnn(size=16))


@pytest.mark.parametrize("kind", DRAWN)
def test_weights_fit_every_size(kind, tmp_path):
    """But for the vector of the autoencoder, which has more positions in larger photos, its length is one."""
    small, large = kind(size=32), kind(size=96)
    saved(small.network(), tmp_path / "w.safetensors")
    again = kind(size=96, weights=tmp_path / "w.safetensors")
    assert torch.equal(again.encode(photos(96)), large.encode(photos(96)))
    assert small.dimension == large.dimension or kind is Autoencoder
    assert small.identity["weights"] == large.identity["weights"] and UNTRAINED not in again.identity


@pytest.mark.parametrize("kind", DRAWN)
def test_on_onnx(kind):
    """To 1e-4 of the largest number, for any number of photos; 48 px leave 3 x 3 positions, which 2 do not divide."""
    encoder = kind(size=48, taps="last-1")
    assert isinstance(encoder, ExportableEncoder) and isinstance(encoder, TrainableEncoder)
    graph = to_onnx(encoder.graph(), photos(48), "photos", ("features",))
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for count in (1, 4):
        batch = photos(48, count, seed=1)
        (found,) = session.run(["features"], {"photos": batch.numpy()})
        expected = encoder.encode(batch).numpy()
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("kind", DRAWN)
def test_the_least_size(kind):
    encoder = kind(size=kind.smallest)
    batch = encoder.prepare(Image.new("RGB", (50, 20), "red"))[None]
    assert batch.shape[1:] == (3, kind.smallest, kind.smallest)
    assert encoder.encode(batch).shape == (1, encoder.dimension)
    with pytest.raises(UsageError, match=f"Encoder size {kind.smallest - 1} px is out of range"):
        kind(size=kind.smallest - 1)


def test_automatic_taps_are_the_stages_that_have_halved_the_photo_thrice():
    layers = {kind: {b.layer for b in blocks_of(kind(taps="auto").identity)} for kind in DRAWN}
    both = {"last", "blocks.2", "blocks.3"}
    assert layers == {Cnn: both, ResNet12: both, ResNet32: set(), Autoencoder: both}


def test_options_are_part_of_the_identity():
    plain, wide, dropped = Cnn(size=16), Cnn(size=16, filters=8), Cnn(size=16, dropout=0.5)
    assert len({e.fingerprint for e in (plain, wide, dropped)}) == 3
    assert options_of(wide.identity) == {"filters": 8, "dropout": 0.0}
    assert torch.equal(plain.encode(photos(16)), dropped.encode(photos(16)))


@pytest.mark.parametrize(("kind", "layer"), [(Cnn, nn.Dropout2d), (ResNet12, "_DropSquares")])
def test_dropout_is_there_in_training_and_in_training_only(kind, layer):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, batch = kind(size=48, dropout=0.5).network(), photos(48).float()
        named = [m for m in network.modules() if type(m).__name__ == getattr(layer, "__name__", layer)]
        assert named
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        assert not torch.equal(network(batch), network(batch))
        assert torch.equal(network.eval()(batch), network(batch))


@pytest.mark.parametrize("side", [1, 2, 3, 5, 6, 21])
def test_dropblock_drops_the_share_that_it_says(side):
    """In whole squares, and of small maps too: timm's drops three quarters of 5 x 5 positions at 0.1."""
    drop = ResNet12(size=16, dropout=0.1).network().network.blocks[3].after[2]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = drop(torch.ones(40, 640, side, side))
    assert 0.07 < (found == 0).float().mean() < 0.11
    assert found.mean().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Cnn(dropout=1.0), "encoder.dropout 1 is out of range"),
        (lambda: ResNet12(dropout=-0.1), "encoder.dropout -0.1 is out of range"),
        (lambda: Autoencoder(filters=12), "encoder.filters 12 does not fit autoencoder. Give a multiple of 8"),
        (lambda: Autoencoder(size=40), "size 40 px does not fit autoencoder. Give a multiple of 16"),
        (lambda: Timm("test_vit", stem="small", seed=0), "encoder.stem small is for ResNets of timm, and 'test_vit'"),
        (lambda: Timm("resnet18d", stem="small", seed=0), "encoder.stem small is for ResNets of timm"),
    ],
)
def test_options_that_do_not_fit(make, said):
    with pytest.raises(UsageError, match=said):
        make()


@pytest.mark.parametrize("kind", [*DRAWN, Lite0])
def test_weights_and_a_seed_are_two_starts(kind, tmp_path):
    with pytest.raises(UsageError, match=r"begins with .* or with weights drawn from seed 1. Give one of them"):
        kind(weights=tmp_path / "w.safetensors", seed=1)
    with pytest.raises(NoInput):
        kind(weights=tmp_path / "w.safetensors")


def test_a_file_of_other_widths_is_refused(tmp_path):
    saved(Cnn(filters=8).network(), tmp_path / "w.safetensors")
    with pytest.raises(DataError, match="does not fit the network"):
        Cnn(weights=tmp_path / "w.safetensors")


# The small stem


def test_a_small_stem_keeps_small_pictures_large():
    """The last maps of 32 px have 4 x 4 positions, as in networks for CIFAR; the usual stem leaves one."""
    small, usual = (Timm("resnet18", size=32, stem=stem, seed=0) for stem in ("small", None))
    shapes = [e.network().eval().network.forward_features(torch.zeros(1, 3, 32, 32)).shape for e in (small, usual)]
    assert [tuple(shape[2:]) for shape in shapes] == [(4, 4), (1, 1)]
    assert Timm("resnet18", stem="small", seed=0).fingerprint == small.fingerprint != usual.fingerprint
    assert options_of(small.identity) == {"stem": "small"} and "options" not in usual.identity
    assert small.timm_name is None and usual.timm_name == "resnet18"


def test_weights_of_the_usual_stem_serve_all_behind_a_small_one(tmp_path):
    network = import_timm().create_model("resnet18", pretrained=False)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    encoder = Timm("resnet18", stem="small", weights=tmp_path / "w.safetensors")
    assert encoder.identity[UNTRAINED] == "stem of seed 0" and is_partly_drawn(encoder.identity)
    known, state = network.state_dict(), encoder.network().state_dict()
    assert all(torch.equal(tensor, known[name]) for name, tensor in state.items() if name != "conv1.weight")
    assert torch.equal(state["conv1.weight"], Timm("resnet18", stem="small", seed=0).network().network.conv1.weight)
    section = EncoderSection(name=f"timm:resnet18@{tmp_path / 'w.safetensors'}", stem="small")
    with pytest.raises(UsageError, match=r"drawn first layers \(encoder.stem: small\): train it with mixtura train"):
        factory.encoder_of(section)
    saved(encoder.network(), tmp_path / "small.safetensors")
    again = Timm("resnet18", stem="small", weights=tmp_path / "small.safetensors")
    assert UNTRAINED not in again.identity and again.identity["weights"] == encoder.identity["weights"]
    other = {**known, "conv1.weight": known["conv1.weight"][..., :5, :5]}
    save_file({name: tensor.contiguous() for name, tensor in other.items()}, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=r"conv1\.weight"):
        Timm("resnet18", stem="small", weights=tmp_path / "w.safetensors")
    save_file(known, tmp_path / "w.safetensors")
    assert UNTRAINED not in Timm("resnet18", size=32, weights=tmp_path / "w.safetensors").identity


def test_a_small_stem_beside_published_weights_is_not_trained(monkeypatch):
    """Everything behind it is."""
    published = import_timm().create_model("resnet18", pretrained=False, num_classes=0)
    monkeypatch.setattr("mixtura.encoders.timm._built", lambda *_: published)
    encoder = Timm("resnet18", stem="small")
    assert encoder.identity[UNTRAINED] == "stem of seed 0"
    state = encoder.network().state_dict()
    assert all(torch.equal(t, state[n]) for n, t in published.state_dict().items() if n != "conv1.weight")


def test_a_tower_needs_no_weights_of_its_own_where_others_are_given(hf_towers, tmp_path):
    for kind in ("clip", "siglip", "vit"):
        plain, folder = HuggingFace(str(hf_towers[kind])), tmp_path / kind
        saved(plain.network(), tmp_path / "w.safetensors")
        folder.mkdir()
        for name in ("config.json", "preprocessor_config.json"):
            (folder / name).write_bytes((hf_towers[kind] / name).read_bytes())
        again = HuggingFace(str(folder), weights=tmp_path / "w.safetensors")
        batch = torch.stack([plain.prepare(Image.new("RGB", (40, 30), color)) for color in ("red", "navy")])
        assert torch.equal(plain.encode(batch), again.encode(batch))
        assert UNTRAINED in HuggingFace(str(folder), seed=1).identity


# In a recipe


@pytest.mark.parametrize("name", ["cnn", "resnet12", "resnet32", "autoencoder"])
def test_an_untrained_network_encodes_nothing(name):
    section = EncoderSection(name=name, size=16)
    with pytest.raises(UsageError) as said:
        factory.encoder_of(section)
    assert str(said.value) == (
        f"The encoder {name!r} has no trained weights: train it with mixtura train, or give encoder.weights."
    )
    encoder = factory.trainable_of(section)
    assert encoder.identity[UNTRAINED] == "seed 0"
    assert factory.trainable_of(section, seed=7).identity[UNTRAINED] == "seed 7"


def test_a_trained_network_encodes(tmp_path):
    saved(Cnn(filters=8).network(), tmp_path / "w.safetensors")
    keys = {"encoder.name": "cnn", "encoder.filters": 8, "encoder.weights": str(tmp_path / "w.safetensors")}
    encoder = factory.encoder_of(resolve(keys | {"encoder.runtime": "torch"}).encoder)
    section = factory.section_of(encoder.identity, EncoderSection(weights=tmp_path / "w.safetensors"))
    assert (section.filters, section.size) == (8, 64)
    assert factory.encoder_of(section).identity == encoder.identity


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("lite0", "filters", 8),
        ("resnet12", "filters", 8),
        ("autoencoder", "dropout", 0.5),
        ("resnet32", "dropout", 0.5),
        ("cnn", "stem", "small"),
        ("logmel", "filters", 8),
    ],
)
def test_options_where_there_are_none(name, key, value):
    section = EncoderSection.model_validate({"name": name, key: value})
    with pytest.raises(UsageError, match=f"Encoder {name!r} has no option {key!r}. Leave out encoder.{key}."):
        factory.trainable_of(section)


def test_only_networks_of_photos_are_trained():
    with pytest.raises(UsageError, match="'logmel' takes sounds"):
        factory.trainable_of(EncoderSection(name="logmel"))
    with pytest.raises(UsageError, match="'pixels' has no network to train"):
        factory.trainable_of(EncoderSection(name="pixels"))

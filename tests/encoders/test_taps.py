"""Taps against hooks written by hand, position by position."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mixtura.encoders.hf import HuggingFace
from mixtura.encoders.lite0 import Lite0, packaged_weights
from mixtura.encoders.taps import Positions, later_stages
from mixtura.encoders.timm import Timm
from mixtura.encoders.tiny import Tiny
from mixtura.encoders.torchvision_repair import import_timm
from mixtura.errors import UnknownName, UsageError
from mixtura.identity import blocks_of

LITE0_BLOCKS = {"blocks.2": 40, "blocks.3": 80, "blocks.4": 112, "blocks.5": 192, "blocks.6": 320}


def bytes_of(size, count=3):
    """Random photos, as lite0, tiny and networks of timm take them."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def outputs(network, layers, x):
    """The vector of a network and the outputs of some of its layers, by hooks put in and taken out here."""
    seen = {}
    hooks = [
        network.get_submodule(layer).register_forward_hook(
            lambda _, __, made, layer=layer: seen.__setitem__(layer, made[0] if isinstance(made, tuple) else made)
        )
        for layer in layers
    ]
    with torch.inference_mode():
        vector = network(x)
    for hook in hooks:
        hook.remove()
    return vector, [seen[layer] for layer in layers]


def pooled(rows):
    """Mean and deviation of rows (positions x channels), a position at a time, in float64."""
    total = square = 0
    for row in rows.double():
        total, square = total + row, square + row**2
    mean = total / len(rows)
    return mean, (square / len(rows) - mean**2).clamp(min=0).sqrt()


def expected(vector, maps, rows_of):
    """The vectors that a naive loop gives; ``rows_of`` turns the output for one photo into positions x channels."""
    found = []
    for place in range(len(vector)):
        parts = [part for output in maps for part in pooled(rows_of(output[place]))]
        found.append(torch.cat([vector[place].double(), *parts]))
    return torch.stack(found)


def close(found, wanted, tolerance=1e-4):
    """To a share of the largest number: a deviation of the naive loop loses digits to the mean."""
    return (found - wanted).abs().max() <= tolerance * wanted.abs().max()


def of_maps(output):
    return output.flatten(1).T


def of_maps_with_channels_last(output):
    return output.flatten(0, 1)


@pytest.mark.parametrize("size", [32, 97])
def test_lite0_equals_a_naive_loop_over_the_published_network(size):
    network = import_timm().create_model("tf_efficientnet_lite0", pretrained=False)
    tensors = torch.load(packaged_weights(), weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), tensors.values(), strict=True)))
    network.reset_classifier(0)
    photos = bytes_of(size)
    wanted = expected(*outputs(network.eval(), LITE0_BLOCKS, photos / 127.5 - 1), of_maps)
    encoder = Lite0(size, taps="auto")
    assert close(encoder.encode(photos), wanted)
    assert [(b.layer, b.pooling, b.stop - b.start) for b in blocks_of(encoder.identity)] == [
        ("last", "last", 1280),
        *((layer, pooling, width) for layer, width in LITE0_BLOCKS.items() for pooling in ("mean", "std")),
    ]
    assert encoder.dimension == wanted.shape[1] == 1280 + 2 * 744


def test_without_taps_lite0_and_tiny_are_what_they_were():
    """Stores of earlier versions have these fingerprints."""
    lite0, tiny = Lite0(64, taps="none"), Tiny(48, taps="auto")
    assert lite0.fingerprint == "1caceec1d78db0aef41eb4fade691b9527c22f438c531c752357a9b8662f7856"
    assert tiny.fingerprint == "be73c79bffc9170303c50739d8e2b0345094ae41a976c5159db9eb9cea8e0a2b"
    assert list(lite0.identity) == ["name", "size", "weights", "preprocessing", "dtype"]
    photos = bytes_of(64)
    assert torch.equal(lite0.encode(photos), Lite0(64, taps="auto").encode(photos)[:, :1280])


def test_features_of_photos_fit_into_float16():
    photos = torch.cat([bytes_of(64), bytes_of(64) // 128 * 255, torch.zeros(1, 3, 64, 64)])
    made = Lite0(64, taps="auto").encode(photos)
    stored = made.half().float()
    assert stored.isfinite().all()
    assert (stored - made).abs().max() <= 2**-11 * made.abs().max()


def timm_networks():
    models = import_timm().models

    def make(name, **options):
        return import_timm().create_model(name, pretrained=False, num_classes=0, **options)

    small = {"num_classes": 0, "embed_dim": 16, "num_heads": 2}
    swin = {"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2), "img_size": 64, "window_size": 2}
    deit = models.VisionTransformer(img_size=64, patch_size=16, depth=5, class_token=True, reg_tokens=2, **small)
    deit.feature_info = [{"module": f"blocks.{place}", "num_chs": 16, "reduction": 16} for place in range(5)]
    cait = models.Cait(img_size=64, patch_size=16, depth=3, **small)
    return {
        "resnet": (make("test_resnet"), ["layer2", "layer3", "layer4"], of_maps),
        "convnext": (make("test_convnext"), ["stages.1", "stages.2", "stages.3"], of_maps),
        "vit": (make("test_vit", img_size=64), [f"blocks.{n}" for n in (2, 3, 4, 5)], lambda t: t[1:]),
        "registers": (deit, [f"blocks.{n}" for n in (1, 2, 3, 4)], lambda t: t[3:]),
        "class token added later": (cait, [f"blocks.{n}" for n in range(3)], lambda t: t),
        "swin": (
            models.SwinTransformer(num_classes=0, **swin),
            ["layers.1", "layers.2", "layers.3"],
            of_maps_with_channels_last,
        ),
    }


@pytest.mark.parametrize("kind", ["resnet", "convnext", "vit", "registers", "class token added later", "swin"])
def test_networks_of_timm_equal_a_naive_loop(kind, monkeypatch):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, layers, rows_of = timm_networks()[kind]
        for parameter in network.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    network = network.eval().requires_grad_(False)
    monkeypatch.setattr("mixtura.encoders.timm._create", lambda *_: (network, ""))
    encoder, photos = Timm(kind, 64, taps="auto"), bytes_of(64)
    x = (photos - encoder._mean) / encoder._std
    wanted = expected(*outputs(network, layers, x), rows_of)
    assert close(encoder.encode(photos), wanted)
    assert list(dict.fromkeys(block.layer for block in blocks_of(encoder.identity)))[1:] == layers
    assert encoder.dimension == wanted.shape[1]


def test_a_list_that_does_not_fit_the_outputs_means_no_taps(monkeypatch):
    """Some networks lay their maps out otherwise than they say: averaging over the wrong axes would go unnoticed."""
    network = import_timm().create_model("test_resnet", pretrained=False, num_classes=0).eval()
    for one in network.feature_info:
        one["num_chs"] += 1
    monkeypatch.setattr("mixtura.encoders.timm._create", lambda *_: (network, ""))
    assert "taps" not in Timm("any", 64, taps="auto").identity
    with pytest.raises(UsageError, match=r"Layer 'layer4' gives 96 numbers a position where 97 are listed"):
        Timm("any", 64, taps="last-1")


def test_networks_without_a_list_of_stages_have_none(monkeypatch):
    network = import_timm().create_model("test_resnet", pretrained=False, num_classes=0).eval()
    del network.feature_info
    monkeypatch.setattr("mixtura.encoders.timm._create", lambda *_: (network, ""))
    assert "taps" not in Timm("any", 64, taps="auto").identity
    assert blocks_of(Timm("any", 64, taps="layer3").identity)[1].layer == "layer3"
    with pytest.raises(UsageError, match=r"timm:any has no stages that can be tapped"):
        Timm("any", 64, taps="last-1")


@pytest.mark.parametrize("kind", ["clip_tower", "clip", "siglip", "dinov2", "dinov3", "vit"])
def test_towers_of_transformers_equal_a_naive_loop(hf_towers, kind):
    skipped = {"siglip": 0, "dinov3": 3}.get(kind, 1)  # class token and registers
    plain, encoder = (HuggingFace(str(hf_towers[kind]), taps=taps) for taps in ("none", "auto"))
    layers = [block.layer for block in blocks_of(encoder.identity)[1::2]]
    assert len(layers) == 2
    photos = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network = plain._network.get_submodule("network")
    seen = {}
    for layer in layers:
        network.get_submodule(layer).register_forward_hook(
            lambda _, __, made, layer=layer: seen.__setitem__(layer, made[0] if isinstance(made, tuple) else made)
        )
    vector = plain.encode(photos)
    wanted = expected(vector, [seen[layer] for layer in layers], lambda tokens: tokens[skipped:])
    assert [seen[layer].shape[1] - skipped for layer in layers] == [16, 16]
    assert close(encoder.encode(photos), wanted)
    with torch.inference_mode():
        hidden = network(pixel_values=photos, output_hidden_states=True).hidden_states
    torch.testing.assert_close(hidden[-2], seen[layers[0]], rtol=0, atol=1e-5)


def test_other_sizes_of_a_tower_count_their_own_patches(hf_towers):
    small, large = (HuggingFace(str(hf_towers["vit"]), size=size, taps="last-1") for size in (32, 48))
    photos = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    layer = blocks_of(large.identity)[-1].layer
    _, (tokens,) = outputs(large._network, [f"network.network.{layer}"], photos)
    assert tokens.shape[1] == 37
    torch.testing.assert_close(large.encode(photos)[:, 32:64], tokens[:, 1:].mean(1), rtol=1e-4, atol=1e-5)
    assert large.dimension == small.dimension == 96


def test_names_go_in_the_order_of_the_network():
    encoder = Lite0(32, taps=" blocks.6, blocks.3.0 ,blocks.6")
    assert [block.layer for block in blocks_of(encoder.identity)[1::2]] == ["blocks.3.0", "blocks.6"]
    same = Lite0(32, taps="blocks.3.0,blocks.6")
    assert same.fingerprint == encoder.fingerprint
    last = Lite0(32, taps="last-2")
    assert [block.layer for block in blocks_of(last.identity)[1::2]] == ["blocks.5", "blocks.6"]


def test_where_nothing_varies_the_deviation_and_its_gradient_are_zero():
    x = torch.ones(2, 4, 3, 3, requires_grad=True)
    pooled = Positions().pooled(x)
    assert pooled is not None
    mean, deviation = pooled
    assert (mean == 1).all() and (deviation == 0).all()
    deviation.sum().backward()
    assert x.grad is not None and (x.grad == 0).all()


def test_threads_do_not_see_each_others_layers():
    encoder, photos = Tiny(32, taps="last-2"), bytes_of(32, 64)
    wanted = encoder.encode(photos)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: encoder.encode(photos[i % 64][None]), range(512)))
    torch.testing.assert_close(torch.cat(found), wanted.repeat(8, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("stages", "chosen"),
    [
        ([], ()),
        ([("one", 4)], ()),
        ([("one", 32)], ("one",)),
        ([(f"s{n}", 2**n) for n in range(9)], ("s4", "s5", "s6", "s7", "s8")),
        ([(f"b{n}", 16) for n in range(12)], ("b8", "b9", "b10", "b11")),
        ([("b0", 4), ("b1", 4)], ("b0", "b1")),
    ],
)
def test_auto_takes_the_later_stages(stages, chosen):
    assert later_stages(stages) == chosen


@pytest.mark.parametrize(
    ("taps", "said"),
    [
        ("last-0", "encoder.taps 'last-0' does not fit: lite0 has 7 stages. Give last-1 to last-7."),
        ("last-99", "encoder.taps 'last-99' does not fit: lite0 has 7 stages. Give last-1 to last-7."),
        ("last-", "'last-' does not fit"),
        ("last-2.5", "'last-2.5' does not fit"),
        ("last--1", "'last--1' does not fit"),
        ("none,blocks.2", "encoder.taps 'none,blocks.2' holds 'none' between the commas. Give auto, none or last-N"),
        ("blocks.2,last-1", "holds 'last-1' between the commas"),
        ("last-1,last-2", "holds 'last-1' between the commas"),
        ("blocks.2,,blocks.3", "holds '' between the commas"),
        ("", "holds '' between the commas"),
        ("block.6", "lite0 has no layer 'block.6' to tap. Did you mean 'blocks.6'? Its stages: blocks.0, blocks.1"),
        ("blocks.2.0.bn1", "lite0 has no layer 'blocks.2.0.bn1' to tap"),
        ("eye", "lite0 has no layer 'eye' to tap. Its stages: blocks.0"),
    ],
)
def test_senseless_taps_are_one_sentence(taps, said):
    with pytest.raises(UsageError) as caught:
        Lite0(32, taps=taps)
    assert said in str(caught.value)


def test_a_layer_without_positions_is_refused(resnet_weights):
    with pytest.raises(UsageError, match=r"Layer 'global_pool' has no output by position to be averaged"):
        Timm("test_resnet", 64, resnet_weights, taps="layer3,global_pool")
    with pytest.raises(UnknownName, match=r"timm:test_resnet has no layer 'layer9' to tap. Did you mean 'layer4'?"):
        Timm("test_resnet", 64, resnet_weights, taps="layer9")

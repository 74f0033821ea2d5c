"""The image towers of Hugging Face against transformers run directly; no network is needed."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mixtura.encoders.hf import TOWERS, HuggingFace
from mixtura.encoders.torchvision_repair import import_transformers
from mixtura.errors import DataError, MissingExtra, NoInput, UsageError

NETWORKS = {  # how transformers' own documentation reads the vector of a photo
    "clip_tower": ("CLIPVisionModelWithProjection", lambda out: out.image_embeds),
    "clip": ("CLIPModel", None),
    "siglip": ("SiglipModel", None),
    "siglip_tower": ("SiglipVisionModel", lambda out: out.pooler_output),
    "dinov2": ("Dinov2Model", lambda out: out.pooler_output),
    "dinov3": ("DINOv3ViTModel", lambda out: out.pooler_output),
    "vit": ("ViTModel", lambda out: out.last_hidden_state[:, 0]),
}
SHAPES = [(40, 50), (200, 33), (32, 32), (1, 1)]


def photos():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in SHAPES]


def encoded(encoder):
    return encoder.encode(torch.stack([encoder.prepare(image) for image in photos()]))


def direct(folder, kind, size=None):
    """The vectors by transformers alone."""
    transformers = import_transformers()
    name, read = NETWORKS[kind]
    network = getattr(transformers, name).from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    given = {} if size is None else {"size": {"height": size, "width": size}}
    pixels = processor(images=photos(), return_tensors="pt", **given)["pixel_values"].float()
    more = {} if size is None else {"interpolate_pos_encoding": True}
    with torch.inference_mode():
        if read is None:
            return network.get_image_features(pixel_values=pixels, **more).pooler_output
        return read(network(pixel_values=pixels, **more))


@pytest.mark.parametrize("kind", NETWORKS)
def test_vectors_are_those_of_transformers(hf_towers, kind):
    encoder = HuggingFace(str(hf_towers[kind]))
    found = encoded(encoder)
    torch.testing.assert_close(found, direct(hf_towers[kind], kind), rtol=0, atol=1e-5)
    single = torch.cat([encoder.encode(encoder.prepare(image)[None]) for image in photos()])
    torch.testing.assert_close(found, single, rtol=0, atol=1e-5)
    assert found.shape == (4, encoder.dimension)


@pytest.mark.parametrize("kind", ["vit", "siglip_tower"])
def test_another_size_interpolates_the_positions(hf_towers, kind):
    encoder = HuggingFace(str(hf_towers[kind]), size=48)
    torch.testing.assert_close(encoded(encoder), direct(hf_towers[kind], kind, size=48), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_identity_says_what_the_vector_is_and_the_own_size_is_no_other(hf_towers, kind):
    encoder, same, other = (HuggingFace(str(hf_towers[kind]), size=size) for size in (None, 32, 48))
    assert encoder.fingerprint == same.fingerprint != other.fingerprint
    torch.testing.assert_close(encoded(encoder), encoded(same), rtol=0, atol=0)
    assert "vector: " in encoder.identity["preprocessing"] and "image_mean" in encoder.identity["preprocessing"]
    margin = 36 if kind in ("clip", "clip_tower", "dinov2") else 32  # the processor resizes to 36 and cuts 32
    assert encoder.draft == 2 * margin and other.draft == 2 * round(margin * 1.5)


def test_the_tower_alone_is_the_tower_of_the_whole(hf_towers, tmp_path):
    """CLIP's file holds a text tower too; only the image tower counts, in vectors and in the hash."""
    transformers = import_transformers()
    whole = HuggingFace(str(hf_towers["clip"]))
    transformers.CLIPVisionModelWithProjection.from_pretrained(hf_towers["clip"]).save_pretrained(tmp_path)
    shutil.copy(hf_towers["clip"] / "preprocessor_config.json", tmp_path)
    alone = HuggingFace(str(tmp_path))
    torch.testing.assert_close(encoded(alone), encoded(whole), rtol=0, atol=1e-5)
    assert alone.identity["weights"] == whole.identity["weights"]


def test_every_tower_is_one_of_transformers():
    transformers = import_transformers()
    for kind, tower in TOWERS.items():
        config = transformers.AutoConfig.for_model(kind)
        assert type(config).__name__ and getattr(transformers, tower.network)


def copy_of(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_weights_that_lack_a_tensor_are_refused_and_not_made_up(hf_towers, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = copy_of(hf_towers["vit"], tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = next(key for key in sorted(tensors) if "layernorm" in key)
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="lack 1 tensors"):
        HuggingFace(str(folder))


@pytest.mark.parametrize("name", ["model.safetensors", "preprocessor_config.json", "config.json"])
def test_damaged_and_missing_files_are_one_sentence(hf_towers, tmp_path, name):
    folder = copy_of(hf_towers["vit"], tmp_path)
    (folder / name).write_text("junk")
    with pytest.raises(NoInput) as damaged:
        HuggingFace(str(folder))
    (folder / name).unlink()
    with pytest.raises(NoInput) as missing:
        HuggingFace(str(folder))
    for caught in (damaged, missing):
        assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_names_and_options_that_do_not_fit(hf_towers, tmp_path):
    with pytest.raises(NoInput, match=r"\./nowhere is no folder"):
        HuggingFace("./nowhere")
    with pytest.raises(NoInput, match=r"w\.safetensors are missing"):
        HuggingFace(str(hf_towers["vit"]), weights=tmp_path / "w.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UsageError, match=r"kind 'bert'\. Known: clip"):
        HuggingFace(str(tmp_path))
    with pytest.raises(UsageError, match="cannot take 4 x 4 px"):
        HuggingFace(str(hf_towers["vit"]), size=4)


def test_without_transformers_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mixtura\[hf\]'"):
        HuggingFace("openai/clip-vit-base-patch32")


@pytest.mark.slow
def test_offline_an_unknown_name_is_one_sentence():
    code = (
        "from mixtura.encoders.hf import HuggingFace\n"
        "from mixtura.errors import NoInput\n"
        "try:\n    HuggingFace('nobody/nothing')\nexcept NoInput as error:\n    print(error)\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert "'nobody/nothing' cannot be had" in done.stdout and "hf:./folder" in done.stdout, done.stderr
    assert len(done.stdout.splitlines()) == 1

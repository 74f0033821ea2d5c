"""Training by reconstruction, from the folder to pictures that are drawn from features; what goes on and is refused."""

import hashlib
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

import mixtura
from mixtura.cli.app import run as command
from mixtura.encoders.own import Own, write_encoder
from mixtura.encoders.timm import Timm
from mixtura.errors import BundleError, UsageError
from mixtura.fitting.network import train_part
from mixtura.fitting.network_material import Material
from mixtura.pipeline import factory, training_photos
from mixtura.recipe import resolve
from mixtura.records.training import TrainingProgress
from mixtura.tasks import train
from mixtura.tasks.training_course import redrawn_of
from mixtura.training_sections import TrainSection

SIDE, EACH = 32, 20
KEYS = {
    "encoder.name": "autoencoder",
    "encoder.size": SIDE,
    "encoder.taps": "none",
    "extract.workers": 0,
    "train.objective": "reconstruction",
    "train.epochs": 25,
    "train.batch_size": 8,
    "train.learning_rate": 1e-2,
    "train.augment.views": [],
}
COLORS = ("tomato", "royalblue", "seagreen")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A square of one color a class, somewhere in front of a light background."""
    root, rng = tmp_path_factory.mktemp("reconstruction") / "photos", np.random.default_rng(0)
    for color in COLORS:
        (root / color).mkdir(parents=True)
        for number in range(EACH):
            photo = Image.new("RGB", (SIDE, SIDE), tuple(rng.integers(180, 250, 3).tolist()))
            x, y = rng.integers(1, 14, 2).tolist()
            ImageDraw.Draw(photo).rectangle([x, y, x + 16, y + 16], fill=color)
            photo.save(root / color / f"{number:03}.png")
    return root


def recipe_for(root, output, **more):
    return resolve({"data.root": root, "output": output} | KEYS | more)


def epochs_of(folder):
    return [json.loads(line) for line in (folder / "training" / "metrics.jsonl").read_text().splitlines()]


def digests(folder):
    return [
        hashlib.sha256((folder / f"{name}.safetensors").read_bytes()).hexdigest() for name in ("encoder", "decoder")
    ]


@pytest.fixture(scope="module")
def trained(photos):
    made = train.run(recipe_for(photos, photos.parent / "shop"))
    assert made.training.replaced and made.training.part == "all" and not made.course.parts[0].redrawn
    return made.fit.bundle_path


def pixels_of(photos, part):
    """The photos of a part, in [0, 1]: N 3 H W."""
    chosen = training_photos.of_dataset(recipe_for(photos, photos.parent / "shop"), dataset_of(photos))
    rows = getattr(chosen, part)
    return np.stack([np.asarray(chosen.dataset.image(int(row))) for row in rows]).transpose(0, 3, 1, 2) / 255


def dataset_of(photos):
    return factory.dataset_of(recipe_for(photos, photos.parent / "shop").data)


def test_the_loss_falls_below_that_of_the_mean_picture(trained, photos):
    losses = [one["validation"]["raw"]["loss"] for one in epochs_of(trained)]
    mean = pixels_of(photos, "training").mean(0)
    assert losses[-1] < 0.6 * losses[0]
    assert min(losses) < ((pixels_of(photos, "validation") - mean) ** 2).mean()


def test_the_bottleneck_is_the_feature_and_the_decoder_draws_from_it(trained, photos, tmp_path):
    """Anywhere; and its reconstructions have the loss that training has reported."""
    shop = shutil.copytree(trained, tmp_path / "elsewhere")
    decoder, batch = mixtura.load_decoder(shop), torch.tensor(255 * pixels_of(photos, "validation")).round().byte()
    encoder = factory.encoder_of(mixtura.load(shop).model.encoder)
    vectors = encoder.encode(batch)
    assert vectors.shape[1] == decoder.dimension == encoder.dimension
    assert torch.equal(decoder(vectors), mixtura.load_decoder(trained)(vectors))
    loss = float((decoder(vectors) - batch / 255).square().double().mean())
    assert loss == pytest.approx(min(one["validation"]["raw"]["loss"] for one in epochs_of(trained)), rel=1e-4)
    pictures = decoder.pictures(vectors.numpy().astype(np.float16))
    assert [picture.size for picture in pictures] == [(SIDE, SIDE)] * len(batch)
    expected = (255 * decoder(vectors)).permute(0, 2, 3, 1).numpy()
    assert np.abs(np.stack([np.asarray(picture) for picture in pictures]) - expected).max() < 2


def test_every_other_task_works_on_it(trained, photos, tmp_path):
    shop, query = shutil.copytree(trained, tmp_path / "shop"), str(photos / "tomato" / "000.png")
    new = [str(tmp_path / f"{number}.png") for number in range(3)]
    for number, path in enumerate(new):
        Image.new("RGB", (SIDE, SIDE), (20 * number, 20, 40)).save(path)
    assert mixtura.load(shop).predict([query])[0].label == "tomato"
    for verb in (
        ["search", str(shop), query],
        ["cluster", str(shop), "--clusters", "3", "-o", str(tmp_path / "groups")],
        ["enroll", str(shop), "dark", *new],
        ["export", str(shop), "-o", str(tmp_path / "onnx")],
    ):
        assert command([*verb, "-q"]) == 0, verb
    other = mixtura.fit(photos, tmp_path / "other", {"encoder.name": f"own:{trained}"}).bundle_path
    assert digests(other) == digests(trained)


def test_a_changed_byte_is_told_before_any_answer(trained, photos, tmp_path):
    broken = shutil.copytree(trained, tmp_path / "broken")
    data = bytearray((broken / "decoder.safetensors").read_bytes())
    data[-1] ^= 1
    (broken / "decoder.safetensors").write_bytes(bytes(data))
    for work in (mixtura.load, mixtura.load_decoder):
        with pytest.raises(BundleError, match=r"decoder\.safetensors was altered") as caught:
            work(broken)
        assert caught.value.exit_code == 65
    (broken / "decoder.safetensors").unlink()
    assert command(["predict", str(broken), str(photos / "tomato" / "000.png")]) == 65


def test_stopped_and_gone_on_to_the_bit(trained, photos, tmp_path):
    class Stopped(Exception):
        pass

    def watch(progress):
        if isinstance(progress, TrainingProgress) and progress.done == 20:
            raise Stopped

    with pytest.raises(Stopped):
        train.run(recipe_for(photos, tmp_path / "shop"), progress=watch)
    assert len(epochs_of(tmp_path / "shop")) < KEYS["train.epochs"]
    train.run(recipe_for(photos, tmp_path / "shop"))
    assert digests(tmp_path / "shop") == digests(trained)


def material(photos, **options):
    recipe = recipe_for(photos, photos.parent)
    chosen = training_photos.of_dataset(recipe, dataset_of(photos))
    section = TrainSection(objective="reconstruction", epochs=1, batch_size=16, **options)
    return Material(section, factory.trainable_of(recipe.encoder, 1), chosen, None, 1, 0)


@pytest.mark.parametrize("pixels", ["bce", "l1"])
def test_a_saved_autoencoder_is_the_trained_one(photos, tmp_path, pixels):
    made = material(photos, pixels=pixels)
    found = train_part(made, "all", tmp_path / "run", lambda: math.inf)
    write_encoder(tmp_path / "one", made.encoder, found.network, found.blocks, found.head)
    batch = torch.stack([made.encoder.prepare(made.photos.dataset.image(row)) for row in range(6)])
    own, decoder = Own(str(tmp_path / "one")), factory.decoder_of(made.encoder)
    decoder.load_state_dict(found.head)
    with torch.no_grad():
        vectors = found.network.eval()(batch.contiguous(memory_format=torch.channels_last))
        assert torch.equal(own.encode(batch), vectors)
        assert torch.equal(mixtura.load_decoder(tmp_path / "one")(vectors), decoder(vectors))
    again = factory.decoder_of(own, seed=5)  # training goes on from what is there
    assert all(torch.equal(tensor, found.head[name]) for name, tensor in again.state_dict().items())
    shown = redrawn_of(made, found)
    assert [one.label for one in shown] == sorted(COLORS)
    assert all(one.photo != one.reconstruction for one in shown)


def test_labels_make_no_difference(photos, tmp_path):
    one = material(photos)
    other = replace(one, photos=replace(one.photos, labels=one.photos.labels[::-1].copy()))
    found = [
        train_part(made, "all", tmp_path / str(place), lambda: math.inf) for place, made in enumerate((one, other))
    ]
    assert found[0].loss == found[1].loss
    assert all(torch.equal(tensor, found[1].head[name]) for name, tensor in found[0].head.items())


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"encoder.name": "cnn"}, "'cnn' has no decoder. Choose an autoencoder"),
        ({"train.objective": "conditional", "train.pixels": "l1"}, "'conditional' compares no pixels. Leave it"),
        ({"train.head": "joint"}, "no head of classes. Leave out train.head: joint"),
        ({"train.unfreeze": 2}, "Leave out train.unfreeze 2"),
        ({"train.trainable": "last"}, "trains the whole network, and train.trainable is 'last'. Leave it out"),
        ({"search.train.learning_rate": {"low": 0.1, "high": 1.0}, "search.trials": 2}
         | {"search.metric": "validation_accuracy", "search.direction": "maximize"}, "Reconstruction has no accuracy"),
        ({"search.train.pixels": {"choices": ["l1", "mse"]}, "search.trials": 2}, "cannot vary 'train.pixels'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_any_photo_is_read(photos, tmp_path, keys, said):
    given = {"data.root": photos, "output": tmp_path / "x"} | KEYS | keys
    spans = {key.removeprefix("search."): given.pop(key) for key in list(given) if key.startswith("search.train")}
    recipe = resolve(given | ({"search.space": spans} if spans else {}))
    with pytest.raises(UsageError, match=said):
        train.run(recipe)
    assert not (tmp_path / "x").exists()


def test_a_folder_without_a_decoder_says_so(photos, tmp_path):
    made = material(photos)
    write_encoder(tmp_path / "one", made.encoder, made.encoder.network())
    with pytest.raises(UsageError, match="was not trained by reconstruction"):
        mixtura.load_decoder(tmp_path / "one")


# A network that is drawn in part


@pytest.fixture(scope="module")
def usual(photos):
    """Weights of a small ResNet with its usual stem."""
    encoder = Timm("resnet18", size=SIDE, seed=3)
    save_file(
        {name: t.contiguous() for name, t in encoder.network().state_dict().items()},
        photos.parent / "usual.safetensors",
    )
    return photos.parent / "usual.safetensors"


def stem_recipe(photos, usual, output, **more):
    keys = {"data.root": photos, "output": output, "encoder.name": f"timm:resnet18@{usual}", "encoder.stem": "small"}
    keys |= {"encoder.size": 16, "encoder.taps": "none", "extract.workers": 0, "train.epochs": 1}
    return resolve(keys | {"train.learning_rate": 1e-12, "train.weight_decay": 0} | more)


def test_weights_that_exist_are_trained_further_behind_a_drawn_stem(photos, usual, tmp_path):
    said = []
    made = train.run(stem_recipe(photos, usual, tmp_path / "shop"), progress=said.append)
    assert made.training.outcome == (
        "The network was trained from its weights, but for the first layers, which were drawn."
    )
    messages = [one.message for one in said if isinstance(one, TrainingProgress)]
    assert (
        sum("first layers of" in message and "are drawn (encoder.stem: small)" in message for message in messages) == 1
    )
    known, found = load_file(usual), load_file(tmp_path / "shop" / "encoder.safetensors")
    weights = [name for name in known if name.endswith("weight") and name != "conv1.weight"]
    assert all(torch.allclose(known[name], found[name], atol=1e-6) for name in weights)
    assert found["conv1.weight"].shape[-1] == 3
    for start, drawn in (("pretrained", "stem of seed 0"), ("scratch", "seed 0")):
        recipe = stem_recipe(photos, usual, tmp_path / "x", **{"train.start": start})
        if start == "scratch":
            recipe = recipe.model_copy(update={"encoder": recipe.encoder.model_copy(update={"name": "timm:resnet18"})})
        assert train._weights(recipe, recipe.train)[2].identity["init"] == drawn


def test_what_leaves_a_drawn_stem_untrained_is_refused(photos, usual, tmp_path):
    for part in ("last", "norm", "frozen", "head"):
        with pytest.raises(UsageError, match=f"are drawn .*train.trainable '{part}' would leave them so. Use all"):
            train.run(stem_recipe(photos, usual, tmp_path / "x", **{"train.trainable": part}))
    searched = {"search.trials": 2, "search.space": {"train.trainable": {"choices": ["all", "last"]}}}
    with pytest.raises(UsageError, match=r"train\.trainable 'last' would leave them so"):
        train.run(stem_recipe(photos, usual, tmp_path / "x", **searched))
    assert not (tmp_path / "x").exists()

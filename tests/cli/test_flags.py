"""The options of every command: names, panels, and the key of the recipe that each sets."""

from pathlib import Path

import pytest
import typer.main
import yaml

from mixtura.cli.app import build
from mixtura.encoders import ENCODERS, NATIVE_SIZES, WITHOUT_SIZE

OPTIONS = {
    "fit": {
        "": "-o --output",
        "Recipe": "-r --dry-run --recipe --set",
        "Encoder": "--batch-size --device --encoder --fast --runtime --size --taps --weights --workers",
        "Model": "--epochs --false-reject-rate --family --follow-links --head --label --learning-rate --level "
        "--n-components --objective --seed --solver --unknown",
    },
    "train": {
        "": "-o --fresh --output",
        "Recipe": "-r --dry-run --recipe --set",
        "Encoder": "--device --encoder --fast --runtime --size --taps --weights --workers",
        "Training": "--epochs --learning-rate --minutes --search --trainable",
        "Model": "--false-reject-rate --follow-links --label --level --seed --unknown",
    },
    "sweep": {
        "": "-o --output",
        "Recipe": "-r --dry-run --recipe --set",
        "Grid": "--epochs --explained-variance --folds --heads --jobs --metric --n-components --n-seeds --objective "
        "--save --search --solver",
        "Model": "--follow-links --label --learning-rate --level",
        "Encoder": "--device --encoder --fast --runtime --size --taps --weights",
    },
    "predict": {"": "--csv --false-discovery-rate --neighbors"},
    "serve": {"": "--host --host-name --keep-photos --open --port --reads --token-file --writes"},
    "evaluate": {"": "--csv --follow-links --label --level"},
    "report": {"": "-o --follow-links --label --level --output"},
    "export": {"": "-o --format --onnx --output --timm"},
    "products": {},
    "enroll": {"": "--kind"},
    "remove": {"": "--item --product"},
    "rename": {},
    "merge": {},
    "split": {},
    "confirm": {},
    "undo": {},
    "history": {"": "--limit"},
    "inspect": {},
    "drift": {"": "--days"},
    "discover": {"": "--accept --kind --name"},
    "recalibrate": {"": "--confirmed --force --prior --write"},
    "extract": {
        "": "-o --output",
        "Recipe": "-r --dry-run --recipe --set",
        "Encoder": "--batch-size --device --encoder --fast --runtime --size --taps --weights --workers",
        "Model": "--follow-links --label",
    },
    "search": {"": "-k --duplicates --evaluate --index --limit --sheet --where"},
    "cluster": {
        "": "-o --output",
        "Clusters": "--clusters --method --product --seed",
        "Accept clusters as classes": "--accept --name",
        "Photos": "--follow-links",
        "Encoder": "--batch-size --device --encoder --fast --runtime --size --taps --weights --workers",
    },
    "subclasses": {
        "": "-o --output",
        "Kinds": "--class --count --embedder --epochs --method --min-rows --most --seed",
        "Accept kinds as classes": "--accept --edit --name",
        "Photos": "--follow-links --label",
        "Encoder": "--batch-size --device --encoder --fast --runtime --size --taps --weights --workers",
    },
    "fewshot": {
        "": "-o --output",
        "Episodes": "--copies --episodes --list --part --protocol --query --seed --shot --skip-small --way",
        "Classifiers": "--base --classifier --normalize --tap --transductive",
        "Photos": "--follow-links --label",
        "Encoder": "--batch-size --device --encoder --fast --runtime --size --taps --weights --workers",
    },
    "data list": {},
    "data get": {"": "-o --output"},
    "data import": {"": "-o --encoder --labels --layout --output --split"},
    "demo": {"": "-o --output"},
    "doctor": {},
}
"""Options by panel, but those of the panel Output."""

KEYS = {
    "fit": {
        "--encoder": "encoder.name=tiny",
        "--size": "encoder.size=96",
        "--taps": "encoder.taps=last-2",
        "--weights": "encoder.weights=w.pt",
        "--device": "encoder.device=cpu",
        "--runtime": "encoder.runtime=torch",
        "--batch-size": "extract.batch_size=8",
        "--workers": "extract.workers=0",
        "--label": "data.label=fine",
        "--level": "data.level=superlabel",
        "--unknown": "data.unknown=[a,b]",
        "--follow-links": "data.follow_links=true",
        "--head": "head.name=vmf",
        "--solver": "fit.solver=em",
        "--objective": "fit.objective=hybrid",
        "--learning-rate": "fit.learning_rate=0.5",
        "--epochs": "fit.epochs=0",
        "--family": "head.family=full",
        "--n-components": "head.n_components=2",
        "--false-reject-rate": "decision.false_reject_rate=0.1",
        "--seed": "seed=0",
        "-o": "output=x",
    },
    "train": {
        "--epochs": "train.epochs=3",
        "--learning-rate": "train.learning_rate=0.5",
        "--minutes": "train.minutes=5",
        "--trainable": "train.trainable=last",
        "--encoder": "encoder.name=tiny",
        "--unknown": "data.unknown=[a,b]",
        "-o": "output=x",
    },
    "extract": {"-o": "extract.store=x", "--label": "data.label=fine", "--workers": "extract.workers=2"},
    "sweep": {
        "--heads": "sweep.heads=[full]",
        "--solver": "sweep.solvers=[closed, em]",
        "--objective": "sweep.objectives=[hybrid]",
        "--explained-variance": "sweep.explained_variance=[0.5]",
        "--n-components": "sweep.n_components=[1, 2]",
        "--n-seeds": "sweep.n_seeds=2",
        "--jobs": "sweep.jobs=1",
        "--epochs": "fit.epochs=3",
        "--learning-rate": "fit.learning_rate=0.5",
        "--encoder": "encoder.name=tiny",
        "--level": "data.level=superlabel",
        "--label": "data.label=fine",
        "-o": "output=x",
    },
}
"""Which key each option sets, with a value to set it to."""

REPEATED = "--unknown"


@pytest.fixture(scope="module")
def commands():
    return dict(_leaves(typer.main.get_command(build())))


def _leaves(group, prefix=""):
    for name, command in group.commands.items():
        yield from _leaves(command, f"{name} ") if hasattr(command, "commands") else [(prefix + name, command)]


def test_every_command_has_its_options_in_their_panels(commands):
    found = {name: {} for name in commands}
    for name, command in commands.items():
        for option in command.params:
            if option.param_type_name == "option" and option.rich_help_panel != "Output":
                found[name].setdefault(option.rich_help_panel or "", set()).update(option.opts)
    assert found == {
        name: {panel: set(words.split()) for panel, words in panels.items()} for name, panels in OPTIONS.items()
    }


@pytest.mark.parametrize(("command", "flag"), [(name, flag) for name, flags in KEYS.items() for flag in flags])
def test_an_option_sets_its_key_and_nothing_else(mixtura, command, flag):
    key, _, text = KEYS[command][flag].partition("=")
    value = yaml.safe_load(text)
    values = value if isinstance(value, list) else [value]
    words = [word for one in values for word in (flag, one)]
    if isinstance(value, list) and flag != REPEATED:
        words = [flag, ",".join(map(str, values))]
    words = [flag] if value is True else words
    said = yaml.safe_load(mixtura(command, "photos", *words, "--dry-run").out)
    without = yaml.safe_load(mixtura(command, "photos", "--dry-run").out)
    assert _leaf(said, key) == value
    _put(without, key, value)
    assert said == without


def _leaf(recipe, key):
    for part in key.split("."):
        recipe = recipe[part]
    return recipe


def _put(recipe, key, value):
    *sections, leaf = key.split(".")
    for part in sections:
        recipe = recipe[part]
    recipe[leaf] = value


@pytest.mark.parametrize("command", ["fit", "extract", "sweep"])
def test_fast_is_a_size(mixtura, command):
    said = mixtura(command, "photos", "--fast", "--dry-run").out
    assert said == mixtura(command, "photos", "--size", 128, "--dry-run").out
    assert yaml.safe_load(said)["encoder"]["size"] == 128
    assert said == mixtura(command, "photos", "--fast", "--size", 128, "--dry-run").out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--size", "224"), "--fast means 128 px, and a size of 224 px is given. Leave one of them out."),
        (("--set", "encoder.size=96"), "--fast means 128 px, and a size of 96 px is given."),
        (("--encoder", "logmel"), "--fast is for photos, and the encoder 'logmel' takes sounds."),
        (("--encoder", "clap:./x"), "--fast is for photos, and the encoder 'clap' takes sounds."),
        (("--encoder", "tiny"), "The encoder 'tiny' reads photos at 32 px, and --fast would enlarge them to 128 px."),
    ],
)
def test_fast_that_makes_no_sense_is_told(mixtura, options, said):
    answer = mixtura("fit", "photos", "-o", "shop", "--fast", *options)
    assert answer.code == 2 and said in answer.err and answer.err.count("\n") == 1


def test_fast_wins_over_a_recipe(mixtura, tmp_path):
    (tmp_path / "r.yaml").write_text("encoder: {name: timm:resnet18, size: 256}\n")
    said = yaml.safe_load(mixtura("fit", "photos", "-r", tmp_path / "r.yaml", "--fast", "--dry-run").out)
    assert said["encoder"] == {"name": "timm:resnet18", "size": 128} | dict.fromkeys(
        ("taps", "device", "runtime"), "auto"
    )


def test_every_encoder_tells_what_fast_does(commands):
    """Networks of timm and hf have sizes of their own."""
    assert set(NATIVE_SIZES) | WITHOUT_SIZE == set(ENCODERS) - {"timm", "hf", "own"}


def test_folds_is_a_switch(mixtura):
    said = mixtura("sweep", "photos", "--folds", "--dry-run")
    assert yaml.safe_load(said.out)["sweep"]["folds"] is True


def test_every_option_of_a_recipe_is_tried(commands):
    """What is left out here is the same option on another command."""
    assert set(KEYS["fit"]) == set(_flags("fit")) - {"-r", "--recipe", "--set", "--dry-run", "--output", "--fast"}
    left_out = {
        "--size",
        "--fast",
        "--taps",
        "--runtime",
        "--weights",
        "--device",
        "--search",
        "--metric",
        "--folds",
        "--save",
        "--follow-links",
    }
    assert set(KEYS["sweep"]) | left_out == set(_flags("sweep")) - {"-r", "--recipe", "--set", "--dry-run", "--output"}


def _flags(command):
    return " ".join(OPTIONS[command].values()).split()


def test_a_recipe_with_a_data_set_takes_its_name_and_other_settings(mixtura):
    recipe = Path(__file__).parents[2] / "recipes" / "gmml-mnist.yaml"
    given = ("--set", "train.batch_size=32", "--set", "train.learning_rate=0.5", "--epochs", "14", "--set", "seed=7")
    said = yaml.safe_load(mixtura("train", "mnist", "-r", recipe, "-o", "gmml", *given, "--dry-run").out)
    assert said["data"]["kind"] == "mnist" and "root" not in said["data"] and said["seed"] == 7
    changed = {"batch_size": 32, "learning_rate": 0.5, "epochs": 14}
    assert {name: said["train"][name] for name in changed} == changed
    assert said["train"]["optimizer"] == "adadelta" and said["head"]["options"]["width"] == 32

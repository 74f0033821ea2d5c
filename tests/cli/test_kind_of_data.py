"""The kind of data that a recipe states, and the levels of its labels, as people type them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mixtura.cli.options import recipe_of

COLORS = {"fruit/apple": (200, 60, 60), "fruit/plum": (160, 40, 160), "greens/leek": (60, 160, 80)}
COLORS |= {"greens/pod": (40, 90, 160)}
ENCODER = ("--encoder", "tiny", "--size", "32")
NESTED = "data: {kind: nested, level: superlabel}\n"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Folders within folders, and the same photos in the outer folders."""
    root, rng = tmp_path_factory.mktemp("shelf"), np.random.default_rng(0)
    for name, color in COLORS.items():
        (root / "nested" / name).mkdir(parents=True)
        outer, inner = name.split("/")
        (root / "flat" / outer).mkdir(parents=True, exist_ok=True)
        for number in range(12):
            pixels = np.array(color) + rng.normal(0, 30, (16, 16, 3))
            path = root / "nested" / name / f"{number}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
            shutil.copy(path, root / "flat" / outer / f"{inner}{number}.png")
    return root


def fitted(mixtura, shelf, place, level):
    made = mixtura("fit", shelf / "nested", "-o", place, *ENCODER, "--level", level, "--set", "data.kind=nested")
    assert made.code == 0, made.err
    return place


@pytest.mark.parametrize(
    ("stated", "made", "kind"),
    [
        ("nested", "", "nested"),
        ("breeds", "", "breeds"),
        ("breeds", "ILSVRC2012_devkit_t12", "breeds"),
        ("imagenet", "", "imagenet"),
        ("office31", "", "office31"),
        ("audio", "", "audio"),
        ("package.module:load", "", "package.module:load"),
        ("folder", "ILSVRC2012_devkit_t12", "imagenet"),
        ("digits", "", "folder"),
        ("csv", "", "folder"),
        ("nested", "store.json", "features"),
    ],
)
def test_the_kind_of_a_recipe_counts_for_a_folder(stated, made, kind, tmp_path):
    (tmp_path / "place").mkdir()
    if made:
        (tmp_path / "place" / made).write_text("{}")
    (tmp_path / "r.yaml").write_text(f"data: {{kind: '{stated}', root: elsewhere}}\n")
    data = recipe_of(str(tmp_path / "place"), tmp_path / "r.yaml", None, {}).data
    assert (data.kind, data.root) == (kind, tmp_path / "place")


def test_a_list_a_pack_a_name_and_an_option_win(tmp_path):
    (tmp_path / "r.yaml").write_text(NESTED)
    for name, kind in {"list.csv": "csv", "photos.npz": "npz"}.items():
        (tmp_path / name).write_text("")
        assert recipe_of(str(tmp_path / name), tmp_path / "r.yaml", None, {}).data.kind == kind
    assert recipe_of("digits", tmp_path / "r.yaml", None, {}).data.kind == "digits"
    assert recipe_of(str(tmp_path), tmp_path / "r.yaml", ["data.kind=folder"], {}).data.kind == "folder"


@pytest.mark.parametrize("command", ["fit", "train", "sweep", "extract"])
def test_every_command_reads_the_kind_of_its_recipe(command, mixtura, shelf, tmp_path):
    (tmp_path / "n.yaml").write_text(NESTED)
    answer = mixtura(command, shelf / "nested", "-r", tmp_path / "n.yaml", "-o", tmp_path / "o", "--dry-run", "--json")
    assert json.loads(answer.out)["data"]["kind"] == "nested"


def test_a_recipe_for_folders_within_folders_is_fitted_and_evaluated(mixtura, shelf, tmp_path):
    (tmp_path / "n.yaml").write_text(NESTED)
    made = mixtura("fit", shelf / "nested", "-o", tmp_path / "m", *ENCODER, "-r", tmp_path / "n.yaml", "--json")
    assert made.code == 0, made.err
    for place in ("nested", "flat"):
        answer = mixtura("evaluate", tmp_path / "m", shelf / place, "--json")
        assert answer.code == 0, answer.err
        found = json.loads(answer.out)
        assert found["items"] == 48 and set(found["recall"]) == {"fruit", "greens"}
        assert "unknown_found" not in found["metrics"]


def test_subclasses_are_no_strangers(mixtura, shelf, tmp_path):
    model = fitted(mixtura, shelf, tmp_path / "m", "both")
    refused = mixtura("evaluate", model, shelf / "nested", "--level", "label")
    assert refused.code == 2
    assert "'fruit/apple' as a class, and it is a subclass of the model. Use --level superlabel" in refused.err
    as_classes = mixtura("evaluate", model, shelf / "flat", "--json")
    assert as_classes.code == 0 and json.loads(as_classes.out)["items"] == 48
    above = mixtura("evaluate", model, shelf / "flat", "--level", "superlabel")
    assert above.code == 65 and "folders within folders, with --set data.kind=nested" in above.err

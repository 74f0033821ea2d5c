"""Read sweeps and searches written before keys were renamed, in the current format."""

import json
from pathlib import Path
from typing import Any

from mixtura import files
from mixtura.files import is_file_at
from mixtura.recipe import Recipe, dump_dict
from mixtura.renames import RENAMED_COLUMNS, RENAMED_KEYS, RENAMED_PARAMETERS, renamed
from mixtura.sections import GRADIENT, FitSection, HeadSection

OLD_FITS = {"conditional": "sgd", "hybrid": "hybrid"}
"""Former names of the gradient fits."""

NEW_KEYS = (
    "options",
    "feature_scale",
    "optimizer",
    "final_learning_rate",
    "class_weight",
    "logit_adjustment",
    "margin",
    "min_val_fraction",
)
"""Keys added since; earlier versions could not write a recipe that sets one."""


def earlier_parts(recipe: Recipe) -> dict[str, Any] | None:
    """The inputs of a sweep's fingerprint under the former keys; ``None`` if they could not express the recipe."""
    plain = dump_dict(recipe)
    given, default = plain["head"] | plain["fit"], dump_dict(HeadSection()) | dump_dict(FitSection())
    if any(given[name] != default[name] for name in NEW_KEYS) or recipe.fit.objective not in OLD_FITS:
        return None
    old = {entry[0][0]: name.partition(".")[2] for name, entry in RENAMED_KEYS.items()}
    head = {old.get(f"head.{name}", name): value for name, value in plain["head"].items() if name not in NEW_KEYS}
    train = {old[f"fit.{name}"]: value for name, value in plain["fit"].items() if f"fit.{name}" in old}
    train = {"hybrid": 0.1} | train
    if recipe.fit.solver == GRADIENT:
        train["fit"] = OLD_FITS[recipe.fit.objective]
    return {"head": head, "train": train, "seed": recipe.seed, "projection": plain["projection"]}


def run_of(plain: dict[str, Any]) -> dict[str, Any]:
    """A stored run with its columns under their current names."""
    return {"objective": ""} | renamed(RENAMED_COLUMNS, plain)


def update_journal(path: Path, about: dict[str, str]) -> None:
    """Rewrite an earlier search's journal with current names, whole or not at all; other journals stay as they are.

    Args:
        path: of the journal, which need not exist.
        about: former description of the search -> current one.
    """
    lines = [json.loads(line) for line in path.read_text().splitlines()] if is_file_at(path) else []
    if any(line.get("user_attr", {}).get("about") in about for line in lines):
        files.write(path, "".join(f"{json.dumps(_entry(line, about))}\n" for line in lines).encode())


def _entry(line: dict[str, Any], about: dict[str, str]) -> dict[str, Any]:
    """One entry of optuna's journal: a setting with its allowed values, or the study's description."""
    if "param_name" in line:
        distribution = json.loads(line["distribution"])
        choices = {line["param_name"]: distribution["attributes"].get("choices")}
        name, values = next(iter(renamed(RENAMED_PARAMETERS, choices).items()))
        if values is not None:
            distribution["attributes"]["choices"] = values
        return line | {"param_name": name, "distribution": json.dumps(distribution)}
    attributes = dict(line.get("user_attr", {}))
    if "about" in attributes:
        attributes["about"] = about.get(attributes["about"], attributes["about"])
    if "space" in attributes:
        attributes["space"] = {
            name: str(value) for name, value in renamed(RENAMED_PARAMETERS, _space(attributes)).items()
        }
    return line | ({"user_attr": attributes} if attributes else {})


def _space(attributes: dict[str, Any]) -> dict[str, Any]:
    """The search space with numeric choices parsed from the text that the journal stores."""
    return {name: _choices(text) if name == "share" else text for name, text in attributes["space"].items()}


def _choices(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.strip("()").split(",") if part.strip())

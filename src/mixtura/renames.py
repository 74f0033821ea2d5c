"""Keys and options that have another name now, and how their old values are written.

The table serves twice: a user's old key or option is an error that says what to write, and what an earlier mixtura has
stored is read as if it had been written today.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Path = tuple[str | int, ...]
"""Where a value stands: ``("projection", 0, "share")``."""

EARLIER_SIZES = {"lite0": 128}
"""Encoder -> the side in pixels that a stored recipe or model without a size stands for."""

UNSET = object()
"""What a converter returns where the old value says nothing of the new key."""


def _same(value: Any) -> Any:
    return value


def _fraction(value: Any) -> Any:
    """Percent as a fraction; what is no number is left for the recipe to complain of."""
    if isinstance(value, list | tuple):
        return type(value)(map(_fraction, value))
    return round(value / 100, 12) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _solver(value: Any) -> Any:
    return "gradient" if value in ("sgd", "hybrid") else value


def _objective(value: Any) -> Any:
    return {"sgd": "conditional", "hybrid": "hybrid"}.get(value, UNSET) if isinstance(value, str) else UNSET


def _solvers(value: Any) -> Any:
    return list(dict.fromkeys(map(_solver, value))) if isinstance(value, list | tuple) else _solver(value)


def _objectives(value: Any) -> Any:
    said = [_objective(one) for one in (value if isinstance(value, list | tuple) else [value])]
    return [one for one in said if one is not UNSET] or UNSET


Convert = Callable[[Any], Any]

RENAMED_KEYS: dict[str, tuple[tuple[str, Convert], ...]] = {
    "train.fit": (("fit.solver", _solver), ("fit.objective", _objective)),
    "train.epochs": (("fit.epochs", _same),),
    "train.batch_size": (("fit.batch_size", _same),),
    "train.rate": (("fit.learning_rate", _same),),
    "train.patience": (("fit.patience", _same),),
    "train.hybrid": (("fit.generative_weight", _same),),
    "train.smoothing": (("fit.label_smoothing", _same),),
    "train.penalty": (("fit.kl_weight", _same),),
    "train.ridge": (("fit.l2", _same),),
    "train.validation": (("fit.val_fraction", _same),),
    "head.components": (("head.n_components", _same),),
    "head.floor": (("head.variance_floor", _same),),
    "projection.share": (("projection.explained_variance", _fraction),),
    "sweep.fits": (("sweep.solvers", _solvers), ("sweep.objectives", _objectives)),
    "sweep.shares": (("sweep.explained_variance", _fraction),),
    "sweep.components": (("sweep.n_components", _same),),
    "sweep.seeds": (("sweep.n_seeds", _same),),
    "sweep.whiten": (("sweep.whiten_power", _same),),
    "split.shares": (("split.fractions", _same),),
}
"""Old key -> the new keys that it has become, each with what its value becomes. The steps of a list share one entry."""

REUSED_KEYS = frozenset({"train.epochs", "train.batch_size", "train.patience"})
"""Old keys that mean something else now; they are old only in a section that has other old keys too."""

RENAMED_STEP_KEYS: dict[str, tuple[tuple[str, Convert], ...]] = {"share": (("explained_variance", _fraction),)}
"""The same for the steps of a stored projection."""

ADDED_KEYS: dict[str, dict[str, Any]] = {"encoder": {"taps": "none"}}
"""Keys that recipes of earlier versions lack, by section, with the value of what was done then."""

RENAMED_FACTS: dict[str, tuple[tuple[str, Convert], ...]] = {
    "fit": (("solver", _solver), ("objective", _objective)),
    "components": (("n_components", _same),),
}
"""The same for the facts of a stored model."""

RENAMED_COLUMNS: dict[str, tuple[tuple[str, Convert], ...]] = {
    "fit": (("solver", _solver), ("objective", _objective)),
    "share": (("explained_variance", _fraction),),
    "components": (("n_components", _same),),
}
"""The same for the rows of a stored sweep."""

RENAMED_PARAMETERS: dict[str, tuple[tuple[str, Convert], ...]] = {
    "share": (("explained_variance", _fraction),),
    "components": (("n_components", _same),),
    "rate": (("learning_rate", _same),),
}
"""The same for the settings of a stored search, each with its choices."""

RENAMED_OPTIONS: dict[tuple[str, str], str] = {
    ("fit", "--fit"): "train.fit",
    ("fit", "--rate"): "train.rate",
    ("fit", "--components"): "head.components",
    ("sweep", "--fit"): "sweep.fits",
    ("sweep", "--rate"): "train.rate",
    ("sweep", "--share"): "sweep.shares",
    ("sweep", "--components"): "sweep.components",
    ("sweep", "--seeds"): "sweep.seeds",
}
"""Old options of the command line by command, and the old key that each has set."""


def old_keys(data: Mapping[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every old key of a recipe: its place, and what to write now, new key by value (new keys may be none).

    >>> list(old_keys({"train": {"fit": "sgd"}}))
    [(('train', 'fit'), {'fit.solver': 'gradient', 'fit.objective': 'conditional'})]
    """
    leaves = _leaves(data, ())
    found = [(place, value, ".".join(part for part in place if isinstance(part, str))) for place, value in leaves]
    old = {place[0] for place, _, key in found if key in RENAMED_KEYS and key not in REUSED_KEYS}
    for place, value, key in found:
        if key in RENAMED_KEYS and (key not in REUSED_KEYS or place[0] in old):
            yield place, _converted(RENAMED_KEYS[key], value)


def told(new: Mapping[str, Any]) -> str:
    """What to write, in words; a key inside a list stands without its section.

    >>> told({"fit.solver": "gradient", "fit.objective": "hybrid"})
    'fit.solver: gradient and fit.objective: hybrid'
    """
    return " and ".join(f"{key.removeprefix('projection.')}{_yaml(value)}" for key, value in new.items())


def _yaml(value: Any) -> str:
    return "" if value is None else f": {_flow(value)}"


def _flow(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_flow, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def convert(old: str, value: Any) -> dict[str, Any]:
    """The new keys, with their values, of an old key and its value."""
    return _converted(RENAMED_KEYS[old], value)


def _leaves(data: Any, place: Path) -> Iterator[tuple[Path, Any]]:
    """Keys of sections, and of the steps of a list of sections."""
    if isinstance(data, Mapping) and len(place) < 3:
        for key, value in data.items():
            yield (*place, key), value
            yield from _leaves(value, (*place, key))
    if isinstance(data, list | tuple) and len(place) == 1:
        for index, value in enumerate(data):
            yield from _leaves(value, (*place, index))


def _converted(entry: tuple[tuple[str, Convert], ...], value: Any) -> dict[str, Any]:
    made = {new: convert(value) for new, convert in entry}
    return {new: value for new, value in made.items() if value is not UNSET}


def renamed(table: Mapping[str, tuple[tuple[str, Convert], ...]], plain: Mapping[str, Any]) -> dict[str, Any]:
    """Stored names and values as they are called now; what has its name still is as it was.

    >>> renamed(RENAMED_COLUMNS, {"fit": "closed", "share": 95.0, "seed": 1})
    {'solver': 'closed', 'explained_variance': 0.95, 'seed': 1}
    """
    made: dict[str, Any] = {}
    for name, value in plain.items():
        made |= _converted(table[name], value) if name in table else {name: value}
    return made


def migrated(data: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe that an earlier mixtura has stored, in the keys of today.

    >>> migrated({"train": {"rate": 0.01}, "seed": 1, "projection": [{"name": "pca", "share": 95}]})
    {'seed': 1, 'projection': [{'name': 'pca', 'explained_variance': 0.95}], 'fit': {'learning_rate': 0.01}}
    """
    made: dict[str, Any] = {key: _step_by_step(key, value) for key, value in data.items()}
    old = list(old_keys(made))
    for place, new in old:
        section, name = map(str, place)
        made[section] = {key: value for key, value in made[section].items() if key != name}
        for dotted, value in new.items():
            target, _, leaf = dotted.partition(".")
            under = {} if made.get(target) is None else made[target]
            if isinstance(under, Mapping):  # else the recipe complains of it
                made[target] = {**under, leaf: value}
    unused = ("train", "hybrid") in [place for place, _ in old] and "hybrid" not in _objectives_in(made)
    if unused:  # it was written out whether or not anything was weighted by it
        made["fit"].pop("generative_weight", None)
    _settle_encoder(made)
    for section, added in ADDED_KEYS.items():
        if isinstance(made.get(section), Mapping):
            made[section] = added | made[section]
    return {key: value for key, value in made.items() if value != {} or data.get(key) == {}}


def _settle_encoder(made: dict[str, Any]) -> None:
    """Write out the size that an encoder without one had; one that read no photos was a default and is left out."""
    encoder, data = made.get("encoder"), made.get("data")
    if not isinstance(encoder, Mapping) or encoder.get("size") is not None:
        return
    size = EARLIER_SIZES.get(str(encoder.get("name", "lite0")))
    if size is None:
        return
    if isinstance(data, Mapping) and data.get("kind") == "features":
        made["encoder"] = {key: value for key, value in encoder.items() if key != "name"}
    else:
        made["encoder"] = {**encoder, "size": size}


def _objectives_in(data: Mapping[str, Any]) -> list[Any]:
    """The objectives that a migrated recipe names."""
    fit, sweep = (section if isinstance(section := data.get(name), Mapping) else {} for name in ("fit", "sweep"))
    several = sweep.get("objectives")
    return [fit.get("objective"), *(several if isinstance(several, list) else [])]


def _step_by_step(key: str, value: Any) -> Any:
    """A list of sections with each of them migrated."""
    if not isinstance(value, list):
        return value
    within = {
        old.removeprefix(f"{key}."): tuple((new.removeprefix(f"{key}."), convert) for new, convert in entry)
        for old, entry in RENAMED_KEYS.items()
        if old.startswith(f"{key}.")
    }
    return [renamed(within, one) if isinstance(one, dict) else one for one in value]

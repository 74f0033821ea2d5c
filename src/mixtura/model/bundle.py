"""The model on disk: config.json, model.safetensors, metrics.json, README.md; nothing pickled, no code not allowed.

A model of a trained encoder holds that too, in ``encoder.safetensors`` and ``encoder.json``. Its configuration names it
by its place in the folder, so the folder may be moved.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mixtura import files, names
from mixtura.core import FAMILIES
from mixtura.core.covariance import family_name
from mixtura.core.mixture import Mixture
from mixtura.encoders import own
from mixtura.encoders.common import require_allowed_encoder, resolved
from mixtura.errors import BundleError, CannotWrite, NoInput, RecipeError, StoreError, UsageError
from mixtura.features.projection import Chain
from mixtura.files import is_there
from mixtura.heads import HEADS, SAVED
from mixtura.heads.base import Head
from mixtura.model import layout_1
from mixtura.model.config import Config, SubclassConfig
from mixtura.model.held_out import HeldOut
from mixtura.model.model import Model
from mixtura.model.prior import AskedPrior, with_prior
from mixtura.model.subclasses import Subclasses
from mixtura.recipe import Recipe, load_stored_recipe
from mixtura.records.catalog import CATALOG_FILE
from mixtura.scores import SCORES
from mixtura.scores.base import Score
from mixtura.scores.typicality import Typicality
from mixtura.sections import EncoderSection

BUNDLE_LAYOUT = 2
LOADING_TRIES = 5  # while another process replaces the model
CONFIG_FILE, TENSORS_FILE, METRICS_FILE, CARD_FILE, RECIPE_FILE = (
    "config.json",
    "model.safetensors",
    "metrics.json",
    "README.md",
    "recipe.yaml",
)
HELD_FILE, HELD_FACT = "out_of_fold.safetensors", "out_of_fold_sha256"
"""File of the out-of-fold items of the fit, and the fact that holds its hash (hex)."""


def recipe_of(folder: Path) -> Recipe:
    """The resolved recipe of the model in a folder.

    Raises:
        BundleError: it is damaged.
    """
    try:
        recipe = load_stored_recipe(files.current(folder / RECIPE_FILE)).model_copy(update={"output": folder})
    except RecipeError as error:
        raise _altered(folder, f"{RECIPE_FILE} is damaged ({error})") from error
    head = recipe.head
    _require_allowed(folder, recipe.encoder, head.family, head.name, *(step.name for step in recipe.projection))
    return recipe


def fingerprint(folder: Path) -> str:
    """The first 12 hexadecimal digits of the hash of a model's configuration, which includes the tensors' hash."""
    return hashlib.sha256(files.read_current(folder / CONFIG_FILE)).hexdigest()[:12]


def check_no_model(folder: Path) -> None:
    """Check, before features are written into a folder, that it is none of a model.

    Raises:
        CannotWrite: it is; what reads the folder could not tell whether the model or the features are meant.
    """
    if is_there(folder / CONFIG_FILE):
        raise CannotWrite(f"{folder} holds a model, and features need a folder of their own. Give a new one.")


def save_pretrained(model: Model, folder: Path | str, others: Mapping[str, bytes] | None = None) -> None:
    """Write a model's tensors and hashed configuration; an earlier model stays intact until all is on the disk.

    Args:
        model: to save.
        folder: target; created if necessary.
        others: further files by name, written at the same time.

    Raises:
        CannotWrite, OutOfSpace: the folder cannot be written, another process writes it, or it has a catalog.
        UsageError: the model is that of a catalog after edits, which is more than a bundle holds.
    """
    _check_plain(model)
    folder = Path(folder)
    with files.new_folder(folder), files.only_writer(folder):
        if is_there(folder / CATALOG_FILE):
            raise CannotWrite(
                f"{folder} has a catalog, which belongs to the model that is there. Save into another folder, or "
                "replace that model with mixtura fit."
            )
        files.collect_staged(folder)
        files.publish(stage(model, folder, others))


def stage(model: Model, folder: Path, others: Mapping[str, bytes] | None = None) -> Path:
    """Write a model beside the one in ``folder``, which stays until :func:`mixtura.files.publish`; returns where.

    Raises:
        CannotWrite, OutOfSpace, UsageError: see :func:`save_pretrained`.
    """
    _check_plain(model)
    data, encoder, held = save(_tensors(model)), _trained_encoder(model), _held(model)
    config = Config(
        layout=BUNDLE_LAYOUT,
        classes=list(model.classes),
        encoder=model.encoder.model_copy(update={"name": own.HERE}) if encoder else model.encoder,
        identity=model.identity,
        dimension=model.dimension,
        projection=model.projection.config(),
        family=family_name(type(model.mixture.covariance)),
        temperature=model.temperature,
        decision=model.decision,
        facts=_facts(model, held),
        head=None if model.head is None else {"name": _head_name(model.head)} | model.head.config(),
        score=None if model.score is None else names.name_of(SCORES, type(model.score)),
        subclasses=_subclass_config(model),
        prior=None if model.prior is None else model.prior.share.tolist(),
        encoder_sha256=hashlib.sha256(encoder[own.DESCRIPTION_FILE]).hexdigest() if encoder else None,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    told = config.model_dump(mode="json", exclude=_without_use(config))
    contents = {TENSORS_FILE: data, CONFIG_FILE: to_json(told)} | encoder | held | dict(others or {})
    return files.stage(folder, contents)


def _without_use(config: Config) -> dict[str, Any]:
    """The keys to leave out, so that a model that needs none of them has the form that earlier versions read."""
    keys = "encoder_sha256", "subclasses", "prior"
    left_out: dict[str, Any] = {key: True for key in keys if getattr(config, key) is None}
    decision = {} if config.subclasses else {"min_subclass_probability": True}
    decision |= {"prior": True} if config.decision.prior is None else {}
    return left_out | {"decision": decision}


def _held(model: Model) -> dict[str, bytes]:
    """The file of the out-of-fold items, if they are of the classes that the model has."""
    held = model.held
    return {} if held is None or held.scores.shape[1] != len(model.classes) else {HELD_FILE: save(held.state())}


def _facts(model: Model, held: dict[str, bytes]) -> dict[str, Any]:
    """The facts to keep, with the hash of the out-of-fold items, where earlier versions do not mind it."""
    return model.facts | ({HELD_FACT: hashlib.sha256(held[HELD_FILE]).hexdigest()} if held else {})


def _subclass_config(model: Model) -> SubclassConfig | None:
    known = model.subclasses
    return None if known is None else SubclassConfig(names=list(known.names), temperature=known.temperature)


def _subclasses(config: SubclassConfig | None, state: dict[str, Tensor]) -> Subclasses | None:
    """The model's named subclasses, if any; a tensor without them is left over."""
    return Subclasses(tuple(config.names), **state, temperature=config.temperature) if config else None


def _trained_encoder(model: Model) -> dict[str, bytes]:
    """The files of the model's encoder, if it is a trained one in a folder."""
    place = own.folder_of(model.encoder.name)
    return {} if place is None else own.read_files(place)


def _check_plain(model: Model) -> None:
    """Refuse the model of an edited catalog, which is more than a bundle holds."""
    if any(part is not None for part in (model.lift, model.fitted, model.newcomers)):
        raise UsageError(
            "The model of an edited catalog cannot be saved by itself: its tests of new products would be lost. "
            "Copy the catalog's folder, or write the model with mixtura export."
        )


def to_json(value: Any) -> bytes:
    """A value as indented, human-readable JSON."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def from_pretrained(folder: Path | str) -> Model:
    """Load the model in a folder, checked strictly.

    Raises:
        NoInput: there is no model.
        BundleError: it is incomplete, altered, or of another version.
    """
    folder = Path(folder)
    config, layout, state = _parts(folder)
    kinds = ("mixture", "projection", "typicality", "head", "score", "subclasses")
    parts: dict[str, dict[str, Tensor]] = {kind: {} for kind in kinds}
    try:
        state = layout_1.migrated_tensors(state) if layout == 1 else state
    except (ValueError, IndexError, RuntimeError) as error:
        raise _altered(folder, f"{TENSORS_FILE} of layout 1 cannot be converted ({error})") from error
    for key, tensor in state.items():
        part, _, name = key.partition(".")
        if part not in parts:
            raise _altered(folder, f"tensor {key!r} is not known")
        parts[part][name] = tensor
    try:
        model = Model(
            tuple(config.classes),
            config.encoder,
            config.identity,
            config.dimension,
            Chain.from_state(config.projection, parts["projection"]),
            Mixture.from_state(config.family, parts["mixture"], len(config.classes)),
            config.temperature,
            Typicality(**parts["typicality"]),
            config.decision,
            {key: value for key, value in config.facts.items() if key != HELD_FACT},
            _head(config.head, parts["head"]),
            score=_score(config.score, parts["score"]),
            subclasses=_subclasses(config.subclasses, parts["subclasses"]),
            held=_held_out(folder, config),
        )
        model = model if config.prior is None else _under_prior(model, config.prior)
        _try(model, set(state))
        return model
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError, AttributeError, BundleError) as error:
        said = " ".join(str(error).split())[:200]
        raise _altered(folder, f"{CONFIG_FILE} and {TENSORS_FILE} do not fit together ({said})") from error


def _under_prior(model: Model, share: list[float]) -> Model:
    """The model under the class prior that its configuration says."""
    return with_prior(model, AskedPrior(model.decision.prior, torch.tensor(share, dtype=torch.float64)))


def _held_out(folder: Path, config: Config) -> HeldOut | None:
    """The out-of-fold items of a fit; ``None`` if an earlier version has fitted the model."""
    digest = config.facts.get(HELD_FACT)
    return None if digest is None else HeldOut(**_loaded(folder, HELD_FILE, digest))


def _parts(folder: Path) -> tuple[Config, int, dict[str, Tensor]]:
    """Configuration, layout and tensors that belong together, also while another process replaces them."""
    for attempt in range(LOADING_TRIES):
        config, layout = _config(folder)
        try:
            _check_encoder(folder, config.encoder_sha256)
            return config, layout, _state(folder, config.sha256)
        except BundleError:
            if attempt == LOADING_TRIES - 1 or _config(folder)[0].sha256 == config.sha256:
                raise
    raise AssertionError("the last attempt returns or raises")


def _check_encoder(folder: Path, digest: str | None) -> None:
    """Check the trained encoder of a model, if it has one.

    Raises:
        BundleError: it is missing or altered.
    """
    if digest is None:
        return
    described = own.read_files(folder)[own.DESCRIPTION_FILE]
    if hashlib.sha256(described).hexdigest() != digest:
        raise _altered(folder, f"{own.DESCRIPTION_FILE} is not the file that {CONFIG_FILE} was written with")


def _head_name(head: Head) -> str:
    return names.name_of(SAVED | HEADS, type(head))


def _head(config: dict[str, Any] | None, state: dict[str, Tensor]) -> Head | None:
    """The model's head, if any, built from plain values; :func:`_config` has checked that its name is allowed."""
    if config is None:
        return None
    options = {key: value for key, value in config.items() if key != "name"}
    head: Head = names.find(SAVED | HEADS, config["name"])(**options)
    head.load_state_dict(state, strict=True)
    return head.eval()


def _score(name: str | None, state: dict[str, Tensor]) -> Score | None:
    """The score that takes the place of the density, if any; :func:`_config` has checked that its name is allowed."""
    return None if name is None else names.find(SCORES, name).from_state(state)


def _try(model: Model, names: set[str]) -> None:
    """Check that all tensors are used, that every class has components, and that the model gives answers.

    A head checks its own tensors, because older ones had fewer.
    """
    component_class = model.mixture.component_class
    ours, theirs = ({n for n in part if not n.startswith("head.")} for part in (_tensors(model), names))
    if (
        ours != theirs
        or component_class is None
        or component_class.unique().tolist() != list(range(len(model.classes)))
    ):
        raise ValueError("tensors or classes are missing or left over")
    if model.subclasses is not None:
        model.subclasses.check(component_class)
    model.answers(np.zeros((1, model.dimension), dtype=np.float32))


def _tensors(model: Model) -> dict[str, Tensor]:
    parts = {
        "mixture": model.unadjusted.state(),
        "projection": model.projection.state(),
        "typicality": model.typicality.state(),
        "head": {} if model.head is None else model.head.state_dict(),
        "score": {} if model.score is None else model.score.state(),
        "subclasses": {} if model.subclasses is None else model.subclasses.state(),
    }
    return {f"{part}.{name}": t.contiguous() for part, state in parts.items() for name, t in state.items()}


def config_of(folder: Path) -> Config:
    """The configuration of the model in a folder, checked strictly, without reading the tensors.

    Raises:
        NoInput: there is no model.
        BundleError: it is altered or of another version.
    """
    return _config(folder)[0]


def _config(folder: Path) -> tuple[Config, int]:
    """The configuration, and the layout version of the folder."""
    path = folder / CONFIG_FILE
    try:
        raw = json.loads(files.read_current(path).decode("utf-8"))
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in files.NO_SUCH_FILE:
            raise NoInput(
                f"{folder} is no model: {CONFIG_FILE} is missing. Give a folder that mixtura fit has written."
            ) from error
        raise _altered(folder, f"{CONFIG_FILE} cannot be read ({error})") from error
    layout = raw.get("layout", BUNDLE_LAYOUT) if isinstance(raw, dict) else BUNDLE_LAYOUT
    if layout not in (1, BUNDLE_LAYOUT):
        raise BundleError(f"{folder} has layout {layout!r}, this mixtura reads 1 and {BUNDLE_LAYOUT}. Fit again.")
    try:
        config = Config.model_validate(layout_1.migrated_config(raw) if layout == 1 else raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise _altered(folder, f"{CONFIG_FILE} is wrong at {place} ({first['msg']})") from error
    named = [(FAMILIES, config.family)]
    if config.head is not None:
        named.append((SAVED | HEADS, str(config.head.get("name"))))
    if config.score is not None:
        named.append((SCORES, config.score))
    for table, name in named:
        if name not in table and not names.is_outside(name):
            raise _altered(folder, f"{name!r} is not known")
    _require_allowed(folder, config.encoder, *(name for _, name in named))
    encoder = own.placed(config.encoder, folder) if config.encoder_sha256 else config.encoder
    try:
        return config.model_copy(update={"encoder": resolved(encoder, config.identity)}), layout
    except StoreError as error:
        raise _altered(folder, str(error)) from error


def _require_allowed(folder: Path, encoder: EncoderSection, *others: str) -> None:
    """See that a model names no code but mixtura's own and what the user allows; nothing is imported for that."""
    require_allowed_encoder(encoder.name, folder)
    for name in others:
        names.require_allowed(name, folder)


def _loaded(folder: Path, name: str, digest: str) -> dict[str, Tensor]:
    """The tensors of a file of a model, which must have this hash."""
    try:
        data = files.read_current(folder / name)
    except OSError as error:
        raise _altered(folder, f"{name} cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise _altered(folder, f"{name} is not the file that {CONFIG_FILE} was written with")
    try:
        return load(data)
    except SafetensorError as error:
        raise _altered(folder, f"{name} is damaged ({error})") from error


def _state(folder: Path, digest: str) -> dict[str, Tensor]:
    state = _loaded(folder, TENSORS_FILE, digest)
    if not all(tensor.isfinite().all() for key, tensor in state.items() if key != "mixture.log_weight"):
        raise _altered(folder, f"{TENSORS_FILE} holds NaN or infinity")
    return state


def _altered(folder: Path, what: str) -> BundleError:
    return BundleError(f"{folder}: {what}. Run mixtura fit again; the features are kept.")

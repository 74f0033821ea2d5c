"""Where the features of a recipe lie: one store for each encoder, side by side in one folder."""

import re
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

from mixtura.encoders.sizes import size_of
from mixtura.errors import UsageError
from mixtura.features.store import HEADER_FILE, FeatureStore
from mixtura.files import is_there
from mixtura.identity import NO_TAPS, differences, fingerprint
from mixtura.pipeline.factory import FEATURES_KIND, encoder_of, section_of
from mixtura.recipe import Recipe
from mixtura.sections import EncoderSection

DEFAULT_ENCODER = EncoderSection().name
MAX_NAME_LENGTH = 60  # characters of an encoder's name in the name of a folder
WITHOUT_EFFECT = frozenset({"device", "runtime"})
"""Keys of the encoder that its features do not depend on."""


def store_path(recipe: Recipe, identity: Mapping[str, str]) -> Path:
    """The folder of the features that an encoder makes for a recipe.

    That is the store that the recipe names, if any; otherwise ``features`` in its output folder, or another folder
    beside it: see :func:`place_for`.

    Raises:
        UsageError: the recipe names neither a store nor an output folder.
        StoreError: a store is damaged.
    """
    if recipe.extract.store is not None:
        return recipe.extract.store
    if recipe.output is None:
        raise UsageError("There is no place for the features. Give an output folder, for example -o shop.")
    return place_for(recipe.output / FEATURES_KIND, identity)


def place_for(base: Path, identity: Mapping[str, str]) -> Path:
    """``base``, or a folder beside it if ``base`` holds the features of another encoder.

    It is the first of ``features``, ``features-224px``, ``features-224px-2``, ... that holds features of this encoder,
    else the first that is free. The names follow from the identity, so the same encoder finds its store again.

    Raises:
        StoreError: a store is damaged.
    """
    free = None
    for place in _places(base, identity):
        if is_there(place / HEADER_FILE):
            if FeatureStore.open(place).fingerprint == fingerprint(identity):
                return place
        elif free is not None or place != base:
            return free or place
        else:
            free = base
    raise AssertionError("the names do not end")


def _places(base: Path, identity: Mapping[str, str]) -> Iterator[Path]:
    name, size = identity.get("name", DEFAULT_ENCODER), size_of(identity)
    plain = "" if name == DEFAULT_ENCODER else re.sub(r"[^\w.]+", "-", name).strip("-.")[-MAX_NAME_LENGTH:]
    words = [plain, "" if size is None else f"{size}px"]
    beside = "-".join([base.name, *filter(None, words)])
    yield base
    yield base.with_name(beside if any(words) else f"{beside}-{fingerprint(identity)[:8]}")
    yield from (base.with_name(f"{beside}-{number}") for number in count(2))


def kept_beside(store: Path, base: Path) -> str:
    """A sentence on the store at ``base`` if a new one is about to be made beside it, else an empty string."""
    if store == base or is_there(store / HEADER_FILE) or not is_there(base / HEADER_FILE):
        return ""
    kept = FeatureStore.open(base).identity
    size = size_of(kept)
    at = "" if size is None else f" at {size} px"
    return f"{base} holds features of {kept.get('name')}{at} and is kept; the new ones go to {store}."


def section_of_store(store: FeatureStore, given: EncoderSection) -> EncoderSection:
    """The section of the encoder behind a feature store, with what ``given`` adds to it.

    Raises:
        UsageError: ``given`` asks for another encoder than that of the store; a key that is not set asks for nothing.
    """
    told = section_of(store.identity, EncoderSection(name=given.name))
    for key in sorted(given.model_fields_set - WITHOUT_EFFECT):
        value = getattr(given, key)
        unread = key == "taps" and value == NO_TAPS
        if value is not None and not unread and value != getattr(told, key):
            _refuse(store, given, key, told)
    return section_of(store.identity, given)


def _refuse(store: FeatureStore, given: EncoderSection, key: str, told: EncoderSection) -> None:
    """Raise if a key asks for another encoder; of a name and a size that is plain, of others the encoder tells."""
    if key in ("name", "size"):
        how = f"{key} is {getattr(told, key)!r} there and {getattr(given, key)!r} here"
    else:
        how = differences(store.identity, encoder_of(section_of(store.identity, given)).identity)
    if how:
        switch = {"name": "--encoder", "size": "--size or --fast"}.get(key, f"--{key}")
        raise UsageError(
            f"{store.path} does not hold features of the encoder that you name: {how}. "
            f"Leave out {switch} (encoder.{key}), or give the photos instead of their features."
        )

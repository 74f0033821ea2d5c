"""Resolve a DATA argument: a folder, a list, a pack, a feature store, or the name of a public data set."""

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from mixtura.datasets import BY_SUFFIX, NAMED, NO_FOLDER, OFFICIAL
from mixtura.datasets.paths import SOUND_SUFFIXES
from mixtura.errors import UsageError
from mixtura.files import is_file_at, is_folder_at, is_there
from mixtura.names import is_outside

LOOKED_AT = 1000
"""Maximum number of files to check when guessing what a folder holds."""

STORE_HEADER = "store.json"
"""The file that marks a feature store."""


FOR_PHOTOS = (
    "data.label", "data.domain", "data.second", "data.subset", "data.metadata", "data.follow_links", "extract.",
)  # fmt: skip
"""Keys, or how they begin, that say how photos are read and encoded; features that are there already ignore them."""


def require_photos(keys: Mapping[str, str], place: object) -> None:
    """Check that no option is given that features ignore.

    Args:
        keys: dotted key -> the option that gave it.
        place: the feature store, for the message.

    Raises:
        UsageError: there is one.
    """
    for key, option in keys.items():
        if key.startswith(FOR_PHOTOS):
            raise without_effect(option, place)


def without_effect(option: str, place: object) -> UsageError:
    """Return the error for an option that says how photos are read, where their features are there already."""
    return UsageError(
        f"{option} has no effect: {place} holds features, whose photos were read before. Leave it out, or give the "
        "photos."
    )


def read_by(option: str, place: object) -> UsageError:
    """Return the error for an option that says how photos are read, where a model or store has its own encoder."""
    return UsageError(f"{option} has no effect: the encoder of {place} reads the photos. Leave it out.")


def data_keys(source: str) -> dict[str, Any]:
    """Return the recipe keys for a DATA argument.

    A path on disk takes precedence over the name of a public data set or of an outside loader (package.module:load); a
    folder written by ``extract`` is a store.

    >>> data_keys("digits")
    {'data.kind': 'digits', 'data.root': None}
    >>> data_keys("list.csv")["data.kind"]
    'csv'
    """
    if not source:  # an unset shell variable; pathlib would read it as the current folder
        return {"data.kind": "folder", "data.root": source}
    path = Path(source)
    if not is_there(path) and (source in NAMED or is_outside(source)):
        return {"data.kind": source, "data.root": None}
    kind = BY_SUFFIX.get(path.suffix.lower(), "folder")
    if is_folder_at(path):
        kind = _kind_of_folder(path)
    elif is_file_at(path):
        kind = _official(path) or kind
    return {"data.kind": kind, "data.root": path}


def as_stated(found: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the keys of :func:`data_keys` with the kind that a recipe states, where the place can be of it.

    A list, a pack, a feature store and a name say themselves what they are, and so does a folder to a recipe for plain
    folders of photos.

    >>> as_stated({"data.kind": "folder", "data.root": Path("fruit")}, "nested")["data.kind"]
    'nested'
    """
    is_sure = found["data.kind"] in NO_FOLDER or not found["data.root"]
    return dict(found) if is_sure or kind in {"folder", *NO_FOLDER} else {**found, "data.kind": kind}


def _kind_of_folder(path: Path) -> str:
    """Return the kind: a feature store, an official public data set, or photos or sounds, whichever are more."""
    if is_file_at(path / STORE_HEADER):
        return "features"
    if found := _official(path):
        return found
    from mixtura.datasets.walk import PHOTO_SUFFIXES, Walk, suffix_of  # here, for a quick start

    files = islice(Walk(path, follow_links=True).below(path), LOOKED_AT)
    endings = Counter(suffix_of(file.name) for file in files)
    photos, sounds = (sum(endings[one] for one in known) for known in (PHOTO_SUFFIXES, SOUND_SUFFIXES))
    return "audio" if sounds > photos else "folder"


def _official(path: Path) -> str | None:
    """Return the public data set whose official files these are."""
    for kind, names in OFFICIAL.items():
        if path.name in names or any(is_there(path / name) for name in names):
            return kind
    return None

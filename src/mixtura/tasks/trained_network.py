"""Trained networks and their features in an output folder: what stays, what moves aside, what goes."""

from collections.abc import Collection
from contextlib import suppress
from itertools import count
from pathlib import Path

from mixtura import files
from mixtura.encoders import own
from mixtura.errors import BundleError, CannotWrite, StoreError, UsageError
from mixtura.features.store import HEADER_FILE, FeatureStore
from mixtura.files import is_there
from mixtura.pipeline.factory import FEATURES_KIND
from mixtura.pipeline.pictures import PICTURES_FILE
from mixtura.recipe import Recipe
from mixtura.training.checkpoint import set_aside

ENCODER_FOLDER = "encoder"
"""Folder of a trained network inside that of its run, where no model has it."""


def check_start(recipe: Recipe, run: Path) -> None:
    """Check that a training does not begin with a network in the folder of its own run, where it writes.

    Raises:
        UsageError: it does.
    """
    folder = own.folder_of(recipe.encoder.name)
    if folder is not None and folder.resolve().is_relative_to(run.resolve()):
        raise UsageError(f"{folder} is part of the run in {run}. Train it further into another folder with -o.")


def start_again(output: Path, run: Path) -> None:
    """Move an earlier run aside, with a copy of the network that the model in the output folder has from it.

    The model stays until another one replaces it.

    Raises:
        CannotWrite, OutOfSpace: see :func:`mixtura.training.checkpoint.set_aside`.
    """
    aside = set_aside(run)
    if aside is not None and not is_there(aside / ENCODER_FOLDER):
        with suppress(BundleError):  # the model has none
            _write(aside / ENCODER_FOLDER, own.read_files(output))


def move_encoder_out(output: Path) -> str:
    """Move the network of an earlier model out of a folder whose model has none; returns what to say, if anything.

    Raises:
        CannotWrite, OutOfSpace: it cannot be moved, and stays.
    """
    try:
        contents = own.read_files(output)
    except BundleError:
        return ""
    names = (f"*/{ENCODER_FOLDER}", f"{ENCODER_FOLDER}-*")
    places = [path.parent for name in names for path in sorted(output.glob(f"{name}/{own.DESCRIPTION_FILE}"))]
    place = next((place for place in places if _holds(place, contents)), None)
    if place is None:
        free = (output / f"{ENCODER_FOLDER}-{number}" for number in count(1))
        place = next(path for path in free if not is_there(path))
        _write(place, contents)
    for name in contents:
        (output / name).unlink(missing_ok=True)
    return f"The trained network of the model that was here before is in {place} now."


def remove_features(output: Path, used: Collection[Path]) -> tuple[str, ...]:
    """Remove the features of trained networks that are not used any more; returns what to say.

    Features of photos that are not there any more could not be made again, so they stay.

    Args:
        output: the folder that holds them; the caller is its only writer.
        used: the stores that are used.
    """
    places = {place.resolve() for place in used}
    photos = {digest for place in places for digest in FeatureStore.open(place).digests().values()}
    removed: list[str] = []
    for header in sorted(output.glob(f"{FEATURES_KIND}*/{HEADER_FILE}")):
        with suppress(StoreError, CannotWrite):  # damaged, or in use
            store = FeatureStore.open(header.parent)
            ours = store.identity.get("name") == own.KIND and header.parent.resolve() not in places
            if ours and photos.issuperset(store.digests().values()):
                with store.lock():
                    (store.path / PICTURES_FILE).unlink(missing_ok=True)
                    store.delete()
                removed.append(str(store.path))
    if not removed:
        return ()
    return (f"The features of a trained network that is not used any more were removed: {', '.join(removed)}.",)


def _holds(place: Path, contents: dict[str, bytes]) -> bool:
    """Whether a folder has a network, whole."""
    with suppress(BundleError):
        return own.read_files(place) == contents
    return False


def _write(place: Path, contents: dict[str, bytes]) -> None:
    files.make_folder(place)
    files.write_all({place / name: data for name, data in contents.items()})

"""Build data sets, encoders and projections from the names in a recipe."""

import inspect
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixtura.datasets import DATASETS, NAMED
from mixtura.datasets.items import Dataset
from mixtura.encoders import ENCODERS
from mixtura.encoders.common import checked_device, drawn, is_outside_encoder, split_name, with_absolute_name
from mixtura.encoders.own import Own
from mixtura.encoders.runtime import on_runtime
from mixtura.encoders.sizes import size_of
from mixtura.encoders.sounds import Clips
from mixtura.encoders.taps import AUTO
from mixtura.errors import NoInput, UsageError, WrongKind
from mixtura.features import PROJECTIONS
from mixtura.features.projection import Projection
from mixtura.files import is_there
from mixtura.generators.autoencoder import Decoder
from mixtura.identity import IMPORTED_PREFIX, NO_TAPS, UNTRAINED, is_partly_drawn, options_of, taps_of
from mixtura.interfaces import Encoder as PhotoEncoder
from mixtura.interfaces import SoundEncoder, TrainableEncoder
from mixtura.names import find, is_outside, nearest
from mixtura.pipeline.data_source import data_keys
from mixtura.recipe import Recipe, with_absolute_paths
from mixtura.sections import ClipsSection, DataSection, EncoderSection, StepSection

Encoder = PhotoEncoder | SoundEncoder

FEATURES_KIND = "features"
"""The data kind of already encoded items, and the folder of features inside a model."""


LACKS = {
    "domain": "have no domains",
    "second": "have no domains",
    "subset": "have no subsets",
    "metadata": "have no further files",
    "follow_links": "hold no links",
}
"""Keys of the data that not every kind takes, with what others lack; a loader takes a parameter of the same name."""


def settled(recipe: Recipe) -> Recipe:
    """The recipe of a run: with the kind of its data, where only their place is given, and its encoder by full paths.

    The kind is the one that the commands find.
    """
    encoder = with_absolute_name(with_absolute_paths(recipe.encoder))
    recipe = recipe if encoder == recipe.encoder else recipe.model_copy(update={"encoder": encoder})
    if recipe.data.root is None or "kind" in recipe.data.model_fields_set:
        return recipe
    kind = data_keys(str(recipe.data.root))["data.kind"]
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"kind": kind})})


def dataset_of(section: DataSection) -> Dataset:
    """The data set of a section.

    Raises:
        NoInput: there is nothing in it.
    """
    check_place(section)
    dataset = read_data(section)
    if not dataset.items:
        listed = "; ".join(problem.message for problem in dataset.problems[:3])
        raise NoInput(
            f"There is no photo or sound in {section.root or section.kind}. "
            "Give a folder with one folder of photos a class." + (f" Left out: {listed}" if listed else "")
        )
    return dataset


def read_data(section: DataSection) -> Dataset:
    """The data set of a section, which may be empty.

    Raises:
        UsageError: its kind takes no such option, or is no data set.
    """
    make, options = find(DATASETS, section.kind), dict[str, Any]()
    takes = _parameters(make, section.kind, "data set")
    if section.label is not None:
        options["label"] = section.label
    for key, lack in LACKS.items():
        value = getattr(section, key)
        if value in (None, False):
            continue
        if ("domain" if key == "second" else key) not in takes:
            raise UsageError(f"Data of the kind {section.kind!r} {lack}. Leave out data.{key}.")
        if key != "second":  # which is read by another section
            options[key] = value
    dataset = _made(make, section.kind, "data set", options, section.root)
    if not isinstance(dataset, Dataset):
        raise WrongKind(f"{section.kind!r} gave no mixtura.datasets.items.Dataset but a {type(dataset).__name__}.")
    return dataset


def second_of(section: DataSection) -> DataSection | None:
    """The data of the second domain of a section, to test a model on that learned from the first; ``None`` without one.

    Raises:
        UsageError: the section names no first domain, or the same one.
    """
    if section.second is None:
        return None
    if section.domain in (None, section.second):
        said = "is that of data.domain" if section.domain else "needs a domain to learn from"
        raise UsageError(f"data.second {section.second!r} {said}. Name two domains: data.domain and data.second.")
    return section.model_copy(update={"domain": section.second, "second": None})


def _parameters(make: Any, name: str, what: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of what a name stands for; none where nobody tells.

    Raises:
        WrongKind: it cannot be called.
    """
    if not callable(make):
        raise WrongKind(f"{name!r} is no {what}: it is {reprlib.repr(make)} and cannot be called.")
    try:
        return inspect.signature(make).parameters
    except ValueError:  # of some built-in types
        return {}


def _made(make: Any, name: str, what: str, options: Mapping[str, Any], *place: Any) -> Any:
    """What a call returns.

    Raises:
        WrongKind: something from outside takes other values.
    """
    try:
        return make(*place, **options)
    except TypeError as error:
        if not is_outside(name):
            raise
        raise WrongKind(f"{name!r} is no {what} of mixtura: {error}.") from error


def output_of(recipe: Recipe, what: str, name: str) -> Path:
    """The output folder of a recipe, checked to be separate from the data.

    Args:
        recipe: with the output folder.
        what: description of the output, for the error message.
        name: folder name to suggest.

    Raises:
        UsageError: there is none, or it holds the data.
    """
    if recipe.output is None:
        raise UsageError(f"There is no place for {what}. Give an output folder, for example -o {name}.")
    if recipe.data.root is not None and recipe.output.resolve() == recipe.data.root.resolve():
        raise UsageError(f"{recipe.output} holds the data. Give {what} a folder of its own, for example -o {name}.")
    return recipe.output


def check_place(section: DataSection) -> None:
    """Check that the data folder exists; a single word may be a misspelled name of a public set.

    Raises:
        UnknownName: there is no such kind of data.
        UsageError: it is a feature store.
        NoInput: there is no such folder.
    """
    root = section.root
    if section.kind == FEATURES_KIND:
        raise UsageError(f"{root} holds features, not photos. Give the photos that they were made of.")
    find(DATASETS, section.kind)
    if section.kind == "folder" and root is not None and not is_there(root) and root.name == str(root):
        hint = nearest(root.name, NAMED)
        raise NoInput(f"There is neither a folder {str(root)!r} nor a public set of this name. {hint}")


def encoder_of(section: EncoderSection) -> Encoder:
    """The encoder of a section, on its device and its runtime.

    Raises:
        UsageError: weights are named twice, the features were imported, the encoder has no such option, the runtime
            does not fit, or the network is not trained.
        MissingExtra: the runtime is not installed.
        UnknownName, NoInput: there is no such encoder, or no such weight file.
    """
    encoder = _encoder_made(section, {})
    if UNTRAINED in encoder.identity:
        lacks, give = "has no trained weights", "give encoder.weights"
        if is_partly_drawn(encoder.identity):
            lacks, give = f"has drawn first layers (encoder.stem: {section.stem})", "leave out encoder.stem"
        raise UsageError(f"The encoder {section.name!r} {lacks}: train it with mixtura train, or {give}.")
    return on_runtime(encoder, section.runtime, device_of(section.device))


def trainable_of(section: EncoderSection, seed: int | None = None) -> TrainableEncoder:
    """The encoder of a section for training, in PyTorch.

    Args:
        section: of a recipe.
        seed: to draw the weights from; those that the encoder comes with, or ``section.weights``, where it is
            ``None``.

    Raises:
        UsageError: as of :func:`encoder_of`; or the encoder takes sounds, or has nothing to train.
        UnknownName, NoInput: there is no such encoder, or no such weight file.
    """
    encoder = _encoder_made(section, {} if seed is None else {"seed": seed})
    if isinstance(encoder, SoundEncoder):
        raise UsageError(f"The encoder {section.name!r} takes sounds, and networks of photos are trained. Use lite0.")
    if not isinstance(encoder, TrainableEncoder):
        raise UsageError(f"The encoder {section.name!r} has no network to train. Choose another, lite0 for example.")
    return encoder


def decoder_of(encoder: TrainableEncoder, seed: int = 0) -> Decoder:
    """A fresh network from the vectors of an encoder back to photos in [0, 1]; both are trained together.

    It begins with the weights that were trained with the encoder, if there are any.

    Args:
        encoder: with a bottleneck.
        seed: to draw the weights from, if there are none.

    Raises:
        UsageError: the encoder has no bottleneck that photos could be drawn from.
    """
    shape = getattr(encoder, "bottleneck", None)
    if shape is None:
        raise UsageError(f"The encoder {encoder.name!r} has no decoder. Choose an autoencoder to reconstruct photos.")
    made, known = drawn(seed, lambda: Decoder(shape)), encoder.decoder_weights() if isinstance(encoder, Own) else None
    if known is not None:
        made.load_state_dict(known)
    return made


def load_decoder(folder: Path | str) -> Decoder:
    """Return the decoder in the folder of an autoencoder that ``mixtura train`` has trained by reconstruction.

    ``pictures`` of it draws photos from feature vectors, on the CPU:
    ``mixtura.load_decoder("shop").pictures(mixtura.FeatureStore.open("shop/features").read().embedding[:4])``.

    Args:
        folder: of the model.

    Raises:
        BundleError: there is no trained encoder in it, or a file of it is damaged.
        UsageError: the encoder was not trained by reconstruction.
    """
    encoder = Own(str(folder))
    if encoder.description.decoder is None:
        raise UsageError(
            f"{folder} has no decoder: its encoder was not trained by reconstruction. Train it with "
            "--encoder autoencoder --set train.objective=reconstruction."
        )
    return decoder_of(encoder).requires_grad_(False).eval()


def _encoder_made(section: EncoderSection, more: Mapping[str, Any]) -> Encoder:
    """The encoder of a section in PyTorch, with further options."""
    if section.name.startswith(IMPORTED_PREFIX):
        raise UsageError(
            f"The features of {section.name.removeprefix(IMPORTED_PREFIX)!r} were imported, and mixtura does not know "
            "the program that made them: no photo can be encoded. Only mixtura predict (a store, .npy, .npz or "
            ".parquet) and mixtura evaluate (a store) take features in place of photos; for all else, fit on photos."
        )
    name, further = split_name(section.name)
    given: dict[str, Any] = {"size": section.size, "weights": section.weights, "device": device_of(section.device)}
    if section.weights is not None and "weights" in further:
        raise UsageError(f"Encoder {section.name!r} names its weights; leave out --weights {section.weights}.")
    make = find(ENCODERS, name)
    options, takes = _options(section) | dict(more), _parameters(make, section.name, "encoder")
    if "taps" not in takes and section.taps in (AUTO, NO_TAPS):
        del options["taps"]
    strange = sorted(set(options) - set(takes))
    if strange:
        raise UsageError(f"Encoder {section.name!r} has no option {strange[0]!r}. Leave out encoder.{strange[0]}.")
    encoder = _made(make, section.name, "encoder", given | options | further)
    if not isinstance(encoder, PhotoEncoder | SoundEncoder):
        raise WrongKind(f"{section.name!r} is no encoder. See Encoder and SoundEncoder in mixtura.interfaces.")
    if is_outside_encoder(section.name) and encoder.identity.get("name") != section.name:
        raise UsageError(
            f"The encoder {section.name!r} has the identity {encoder.identity.get('name')!r}, by which its features "
            f"could not find it again. Set identity['name'] to {section.name!r}."
        )
    return encoder


def _options(section: EncoderSection) -> dict[str, Any]:
    """The recipe's options that not every encoder takes: taps and widths of photos, clips and length of sounds."""
    options: dict[str, Any] = {"taps": section.taps}
    given = {key: getattr(section, key) for key in ("normalize", "filters", "dropout", "stem")}
    options |= {key: value for key, value in given.items() if value is not None}
    if section.clips is not None:
        options["clips"] = Clips(section.clips.how, section.clips.seconds, section.clips.hop)
    return options


def check_modality(dataset: Dataset, encoder: Encoder) -> None:
    """Check that the encoder takes this kind of data, before anything is decoded.

    Raises:
        UsageError: it does not.
    """
    hears = isinstance(encoder, SoundEncoder)
    if dataset.modality == "audio" and not hears:
        raise UsageError(
            f"{dataset.name} holds sounds, and the encoder {encoder.name!r} takes photos. "
            "Give one for sounds, as in --encoder logmel, or soundnet, or clap:NAME."
        )
    if dataset.modality != "audio" and hears:
        raise UsageError(
            f"{dataset.name} holds photos, and the encoder {encoder.name!r} takes sounds. "
            "Give one for photos, as in --encoder lite0; for a folder of sounds set data.kind=audio."
        )


def section_of(identity: Mapping[str, str], given: EncoderSection) -> EncoderSection:
    """The section of the encoder behind some features, to build it again for new photos.

    Values in ``given`` take precedence; size, widths, clips and normalization otherwise come from the identity. The
    taps come from the identity always; ``none`` leaves those of the features unread. An identity may name the kind of
    an encoder without its place, which may change; ``given`` then says where it is.

    Raises:
        UsageError: other taps are given; no option can add them to features that are there.
    """
    name = identity.get("name", given.name)
    name = given.name if given.name.startswith(f"{name}:") else name
    size = size_of(identity) if given.size is None else given.size
    clips = Clips.from_identity(identity)
    section = given.clips or (clips and ClipsSection.model_validate(vars(clips)))
    normalize = given.normalize
    if normalize is None and "normalization" in identity:
        normalize = identity["normalization"] == "unit length"
    taps = taps_of(identity)
    if given.taps not in (AUTO, NO_TAPS, taps) and _taps_named(given.model_copy(update={"name": name})) != taps:
        raise UsageError(
            f"These features of {name!r} have the taps {taps!r}, and encoder.taps is {given.taps!r}. Leave it out, or "
            "extract the photos again into a new folder."
        )
    own = {key: value for key, value in options_of(identity).items() if getattr(given, key, 0) is None}
    known = {"name": name, "size": size, "taps": taps, "clips": section, "normalize": normalize}
    return given.model_copy(update=known | own)


def _taps_named(section: EncoderSection) -> str:
    """The layers that ``last-N``, or names in another order, mean for an encoder."""
    return taps_of(encoder_of(section).identity)


def device_of(name: str) -> str:
    """The device with this name, with ``auto`` resolved.

    Raises:
        UsageError: there is no such device.
    """
    if name != "auto":
        return str(checked_device(name))
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def steps_of(sections: tuple[StepSection, ...]) -> tuple[tuple[type[Projection], dict[str, Any]], ...]:
    """The projection classes of a recipe with their options."""
    found = [(find(PROJECTIONS, section.name), section) for section in sections]
    for kind, section in found:
        if not isinstance(kind, type) or not callable(getattr(kind, "fit", None)):
            raise WrongKind(f"{section.name!r} is no projection: it is not a class with fit.")
    return tuple((kind, section.options()) for kind, section in found)


def workers_of(recipe: Recipe) -> int:
    """Number of decoder threads."""
    return recipe.extract.workers if recipe.extract.workers is not None else max(1, os.cpu_count() or 1)

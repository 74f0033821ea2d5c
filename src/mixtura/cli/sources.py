"""What commands that group items take them from: photos, a feature store, a model or its catalog."""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from mixtura.cli import options
from mixtura.cli.output import Output
from mixtura.errors import UsageError
from mixtura.files import is_file_at
from mixtura.pipeline.data_source import STORE_HEADER, without_effect
from mixtura.recipe import Recipe

if TYPE_CHECKING:
    from mixtura.features.records import Features
    from mixtura.tasks.collection import Collection
    from mixtura.tasks.kept_features import Origin

DEVICE_KEYS = ("encoder.device", "encoder.runtime")
"""Keys that do not change what an encoder computes."""

MODEL_FILE = "config.json"
"""The file that marks a model folder."""


@dataclass(frozen=True)
class Source:
    """Where items come from, and where the results go: the arguments of the command."""

    place: str
    photos: str | None
    product: str | None
    output: Path
    flags: dict[str, Any]

    @property
    def name(self) -> str:
        """What the items are called in a title."""
        return self.product or Path(self.photos or self.place).name

    @property
    def words(self) -> str:
        """The arguments as you would type them."""
        return " ".join(map(quote, filter(None, (self.place, self.photos))))

    @property
    def encoder_options(self) -> tuple[str, ...]:
        """The options that choose the encoder, as you would type them."""
        given = {key: value for key, value in self.flags.items() if key.startswith("encoder.")}
        words = options.words_for({key: value for key, value in given.items() if key not in DEVICE_KEYS})
        return (*words, *(["--fast"] if options.FAST in self.flags else []))

    @property
    def is_read(self) -> bool:
        """Whether photos are read, and not features that exist already."""
        return self.photos is not None or not is_stored(self.place)

    def recipe(self) -> Recipe:
        """Return the recipe that reads the photos."""
        return options.recipe_of(self.photos or self.place, None, None, self.flags | {"output": self.output})


def items(out: Output, source: Source, following: str) -> tuple["Collection", tuple[Any, ...]]:
    """Return the items, and the unusable files; ``following`` says on the progress bar what comes after reading."""
    from mixtura.cli.progress import Bar
    from mixtura.tasks import collection

    if source.product is not None:
        return collection.items_of(Path(source.place), source.product), ()
    if not source.is_read:
        return collection.open_collection(Path(source.place)), ()
    with Bar(out, next=following) as bar:
        if source.photos is None:
            return collection.photos_of(source.recipe(), bar)
        return collection.photos_by(Path(source.place), source.recipe(), bar)


def origin(source: Source, features: "Features", problems: tuple[Any, ...]) -> "Origin":
    """Return how a run got its features, for its record."""
    from mixtura.tasks.kept_features import Origin

    return Origin(dict(features.identity), source.encoder_options, tuple(one.source for one in problems))


def check_encoder(source: Source, run: "Origin | None") -> None:
    """Check that no other encoder is asked for than that of the run whose results are accepted.

    Raises:
        UsageError: another is.
    """
    given = source.encoder_options
    if run is None or not given or sorted(given) == sorted(run.options):
        return
    had = f"has {' '.join(run.options)}" if run.options else "has none of these options"
    raise UsageError(f"--accept uses the encoder of the last run, which {had}. Leave out {' '.join(given)}.")


def refuse_flags(flags: dict[str, Any], source: str) -> None:
    """Refuse options for reading photos where the features exist already."""
    if flags:
        raise without_effect(options.switch_of(next(iter(flags))), source)


def is_stored(source: str) -> bool:
    """Whether the features exist already: a model, a catalog or a feature store."""
    return is_file_at(Path(source) / MODEL_FILE) or is_file_at(Path(source) / STORE_HEADER)

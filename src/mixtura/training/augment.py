"""Augmentation: random views of a photo, each a function of (seed, epoch, id) and of nothing else.

Views are made of the photo before the encoder's ``prepare``, so each encoder treats a view as it treats a photo: it is
resized, cropped and scaled as in prediction, and no view needs to know how. Prepared tensors would not do: some
encoders give bytes and some give scaled numbers, and a crop of a prepared photo has lost the pixels it would enlarge.
"""

import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from PIL import Image, ImageFilter

from mixtura.encoders.torchvision_repair import import_torchvision
from mixtura.errors import UnknownName, UsageError
from mixtura.names import nearest
from mixtura.training.keyed_random import KeyedRandom

Photo = Image.Image
Option = Any
"""A value as a recipe gives it; each view checks its own."""

GRAY = (128, 128, 128)
"""What fills borders and erased parts: close to zero once an encoder has scaled it."""

_TRIES = 10  # rectangles that may stick out of the photo before it stays as it is


def horizontal_flip(photo: Photo, random: KeyedRandom) -> Photo:
    """Return the photo mirrored left to right."""
    return _functional().horizontal_flip(photo)


def vertical_flip(photo: Photo, random: KeyedRandom) -> Photo:
    """Return the photo mirrored top to bottom."""
    return _functional().vertical_flip(photo)


def rotation(photo: Photo, random: KeyedRandom, degrees: Option = 15.0) -> Photo:
    """Return the photo turned by an angle in [-``degrees``, ``degrees``], of the same size, with gray corners."""
    _check("degrees", degrees, 0.0, 180.0)
    angle = random.uniform(-degrees, degrees)
    bilinear = _functional().InterpolationMode.BILINEAR
    return _functional().rotate(photo, angle, interpolation=bilinear, fill=list(GRAY))


def random_resized_crop(
    photo: Photo, random: KeyedRandom, scale: Option = (0.35, 1.0), ratio: Option = (3 / 4, 4 / 3)
) -> Photo:
    """Return a crop, which the encoder will resize.

    Args:
        scale: smallest and largest share of the photo's area, above 0 and at most 1; uniform.
        ratio: smallest and largest aspect ratio of the crop relative to that of the photo; log-uniform. Encoders that
            keep no aspect ratio distort the crop by this much more than the photo.

    Source: Szegedy et al., Going deeper with convolutions (CVPR 2015), section 6.
    """
    box = _part(photo.size, random, scale, ratio)
    return photo if box is None else photo.crop(box)


def color_jitter(
    photo: Photo,
    random: KeyedRandom,
    brightness: Option = 0.4,
    contrast: Option = 0.4,
    saturation: Option = 0.4,
    hue: Option = 0.1,
) -> Photo:
    """Return the photo with other colors, changed in a random order.

    Args:
        brightness, contrast, saturation: the factor of each is in [max(0, 1 - x), 1 + x].
        hue: the shift is in [-``hue``, ``hue``] of the circle of colors, at most 0.5.
    """
    _check("hue", hue, 0.0, 0.5)
    steps: list[tuple[Callable[..., Photo], float]] = []
    for name, strength in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
        _check(name, strength, 0.0, math.inf)
        if strength:
            factor = random.uniform(max(0.0, 1 - strength), 1 + strength)
            steps.append((getattr(_functional(), f"adjust_{name}"), factor))
    if hue:
        steps.append((_functional().adjust_hue, random.uniform(-hue, hue)))
    while steps:
        change, amount = steps.pop(random.below(len(steps)))
        photo = change(photo, amount)
    return photo


def blur(photo: Photo, random: KeyedRandom, sigma: Option = (0.1, 1.0)) -> Photo:
    """Return the photo under a Gaussian blur.

    Args:
        sigma: smallest and largest standard deviation, in percent of the photo's shorter side; uniform.
    """
    least, most = _check_pair("sigma", sigma, 0.0, 100.0)
    radius = random.uniform(least, most) / 100 * min(photo.size)
    # Pillow's works on bytes; torchvision's is a convolution of floats, whose last bits depend on the machine.
    return photo.filter(ImageFilter.GaussianBlur(radius))


def grayscale(photo: Photo, random: KeyedRandom) -> Photo:
    """Return the photo without colors."""
    return _functional().rgb_to_grayscale(photo, num_output_channels=3)


def invert(photo: Photo, random: KeyedRandom) -> Photo:
    """Return the negative of the photo."""
    return _functional().invert(photo)


def autocontrast(photo: Photo, random: KeyedRandom) -> Photo:
    """Return the photo with each channel stretched from black to white."""
    return _functional().autocontrast(photo)


def erase(photo: Photo, random: KeyedRandom, scale: Option = (0.02, 0.33), ratio: Option = (0.3, 3.3)) -> Photo:
    """Return the photo with a gray rectangle over it.

    Args:
        scale: smallest and largest share of the photo's area, above 0 and at most 1; uniform.
        ratio: smallest and largest aspect ratio of the rectangle relative to that of the photo; log-uniform.

    Source: Zhong et al., Random erasing data augmentation (AAAI 2020).
    """
    box = _part(photo.size, random, scale, ratio)
    if box is None:
        return photo
    erased = photo.copy()
    erased.paste(GRAY, box)
    return erased


def _part(size: tuple[int, int], random: KeyedRandom, scale: Option, ratio: Option) -> tuple[int, int, int, int] | None:
    """A random rectangle in a photo: left, top, right, bottom; ``None`` where each one tried has stuck out."""
    least, most = _check_pair("scale", scale, 1e-3, 1.0)
    narrow, wide = _check_pair("ratio", ratio, 0.01, 100.0)
    for _ in range(_TRIES):
        area = random.uniform(least, most)
        aspect = math.exp(random.uniform(math.log(narrow), math.log(wide)))
        width, height = round(size[0] * math.sqrt(area * aspect)), round(size[1] * math.sqrt(area / aspect))
        if 0 < width <= size[0] and 0 < height <= size[1]:
            left, top = random.below(size[0] - width + 1), random.below(size[1] - height + 1)
            return left, top, left + width, top + height
    return None


VIEWS: dict[str, Callable[..., Photo]] = {
    "horizontal_flip": horizontal_flip,
    "vertical_flip": vertical_flip,
    "rotation": rotation,
    "random_resized_crop": random_resized_crop,
    "color_jitter": color_jitter,
    "blur": blur,
    "grayscale": grayscale,
    "invert": invert,
    "autocontrast": autocontrast,
    "erase": erase,
}
"""Views by name: functions of an RGB photo, a :class:`~mixtura.training.keyed_random.KeyedRandom` and options."""


@dataclass(frozen=True)
class View:
    """One view of a list of them.

    Args:
        name: a name in :data:`VIEWS`.
        probability: of its use, 0 to 1; the photo passes unchanged otherwise.
        options: arguments of the view by name.

    Raises:
        UnknownName: there is no such view.
        UsageError: the probability or an option is out of range, or there is no such option.
    """

    name: str
    probability: Option = 0.5
    options: Mapping[str, Option] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in VIEWS:
            raise UnknownName(f"There is no view {self.name!r} for augmentation. {nearest(self.name, VIEWS)}")
        _check("probability", self.probability, 0.0, 1.0, self.name)
        known = [*inspect.signature(VIEWS[self.name]).parameters][2:]
        for option in self.options:
            if option not in known:
                hint = nearest(option, known) if known else "It takes none."
                raise UsageError(f"The view {self.name!r} has no option {option!r}. {hint}")
        try:
            VIEWS[self.name](Image.new("RGB", (8, 8)), KeyedRandom("check"), **self.options)
        except UsageError as error:
            raise UsageError(f"View {self.name!r}: {error}") from error


@dataclass(frozen=True)
class Augmentation:
    """Random views of photos, one after the other; give them to a loader of training photos.

    A view of a photo depends on the arguments alone: not on other photos, the order, threads or global generators.

    Args:
        views: what is done, in this order.
        seed: other seeds give other views.
        count: views of each photo in a batch of training photos, for objectives that compare them.
    """

    views: tuple[View, ...]
    seed: int = 0
    count: int = 1

    def __call__(self, photo: Photo, id: str, epoch: int, repeat: int = 0, number: int = 0) -> Photo:
        """Return the view of a photo.

        Args:
            photo: RGB; it is not changed.
            id: of the item, unique in its data set.
            epoch: each epoch has views of its own.
            repeat: how often the item has occurred in this epoch before; each occurrence has a view of its own.
            number: of the view, from 0, where a batch has several of each photo.
        """
        random = KeyedRandom("augment", self.seed, epoch, id, repeat, *((number,) if number else ()))
        for view in self.views:
            if random.chance(view.probability):
                photo = VIEWS[view.name](photo, random, **view.options)
        return photo


def _check(name: str, value: Option, least: float, most: float, view: str = "") -> float:
    """A number in [least, most], or an error that names the option."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and least <= value <= most and math.isfinite(value)):
        where = f" of the view {view!r}" if view else ""
        upto = f"of at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
        raise UsageError(f"The {name}{where} is {value!r}. Give a number {upto}.")
    return float(value)


def _check_pair(name: str, value: Option, least: float, most: float) -> tuple[float, float]:
    """Two numbers in [least, most], the first no larger than the second."""
    if not (isinstance(value, list | tuple) and len(value) == 2):
        raise UsageError(f"The {name} is {value!r}. Give two numbers, the smallest and the largest.")
    low, high = (_check(name, one, least, most) for one in value)
    if low > high:
        raise UsageError(f"The {name} is {value!r}. Give the smaller number first.")
    return low, high


@cache
def _functional() -> Any:
    """The functions of torchvision; the first call is in :class:`View`, not in a thread that decodes."""
    import_torchvision()
    return importlib.import_module("torchvision.transforms.v2.functional")

"""What the boxes ask of each other: typing protocols and nothing else, each written once.

A box that needs an encoder, a data set, a head or an objective names the protocol here and never imports its neighbor.
A protocol lists what others use; the classes behind it may offer more.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int, Num
from PIL import Image
from torch import Tensor, nn

# Data sets


@runtime_checkable
class Item(Protocol):
    """What is known of one photo or sound: any record with these fields."""

    @property
    def id(self) -> str:
        """Its name, unique in the data set and stable from run to run."""
        ...

    @property
    def source(self) -> str:
        """What people are shown."""
        ...

    @property
    def label(self) -> str | None:
        """Its class."""
        ...

    @property
    def superlabel(self) -> str | None:
        """Its superclass."""
        ...

    @property
    def group(self) -> str | None:
        """Items of one group stay on one side of a split."""
        ...

    @property
    def split(self) -> str | None:
        """Train, val or test, where that is given."""
        ...

    @property
    def weight(self) -> float:
        """Its sample weight, at least 0."""
        ...


@runtime_checkable
class Dataset(Protocol):
    """A data set of photos; ``image`` and ``digest`` are called from several threads."""

    @property
    def items(self) -> Sequence[Item]:
        """The items, in a fixed order."""
        ...

    def image(self, index: int, *, draft: int | None = None) -> Image.Image:
        """The photo as RGB; a JPEG may be reduced while it is decoded, to no side below ``draft`` pixels."""
        ...

    def digest(self, index: int) -> str:
        """The SHA-256 (hex) of the photo's bytes."""
        ...


@runtime_checkable
class SoundDataset(Protocol):
    """A data set of sounds; ``sound`` and ``digest`` are called from several threads."""

    @property
    def items(self) -> Sequence[Item]:
        """The items, in a fixed order."""
        ...

    def sound(self, index: int, rate: int) -> Float32[np.ndarray, " T"]:
        """The sound as one channel of ``rate`` samples a second."""
        ...

    def digest(self, index: int) -> str:
        """The SHA-256 (hex) of the sound's bytes."""
        ...


# Encoders


@runtime_checkable
class Encoder(Protocol):
    """A frozen map from an RGB photo to a vector of ``dimension`` numbers.

    ``identity`` says everything that changes the vectors (name, weights, preprocessing, number format) and
    ``fingerprint`` is its hash; ``versions`` names the libraries and is not part of either. ``prepare`` works on
    one photo and runs in many threads at once; ``encode`` works on a batch, keeps no gradient and returns
    float32 on the CPU, whatever the device of the network. ``draft`` is the side in pixels to which a large JPEG may
    be reduced while it is decoded (many times faster), ``None`` where every pixel counts; decode with it always, in
    training and in prediction, since it changes the vectors a little.
    """

    name: str
    dimension: int
    identity: dict[str, str]
    fingerprint: str
    versions: dict[str, str]
    draft: int | None

    def prepare(self, image: Image.Image) -> Num[Tensor, "3 H W"]:
        """The photo as the tensor that ``encode`` takes, all of one size."""
        ...

    def encode(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """The vectors of a batch of prepared photos."""
        ...


@runtime_checkable
class ExportableEncoder(Encoder, Protocol):
    """An encoder that can leave mixtura: its arithmetic as a module, its preparation of photos as plain values."""

    def graph(self) -> nn.Module:
        """What ``encode`` computes, N 3 H W to N x D, as a module that can be traced."""
        ...

    def steps(self) -> list[dict[str, Any]]:
        """What ``prepare`` does, in order, each a dict with ``step``.

        ``resize`` to ``size`` (height, width) or so that the ``shortest`` side has so many pixels, with a Pillow
        ``filter`` by name; ``crop`` the middle of ``size``, with black around a smaller picture.
        """
        ...


@runtime_checkable
class TrainableEncoder(Encoder, Protocol):
    """An encoder whose network can be trained, and which takes the trained weights back as ``weights``.

    ``stages`` names the modules of its network at whose call a new block begins, in the order of the forward pass, as
    far as they are known; each is called once, with what it is to work on as the first argument. What comes before the
    first is a block too. :func:`mixtura.encoders.stages.stages_of` makes the blocks of them. An ``init`` in the
    identity says that the weights are drawn at random and the network is not trained.
    """

    stages: tuple[str, ...]

    def network(self) -> nn.Module:
        """A fresh network to train, from a batch of prepared photos (N 3 H W) to vectors (N x D).

        It is in training mode, on the encoder's device, with every batch norm and dropout that its library gives it,
        and shares no tensor with the encoder: ``encode`` stays what it is. In evaluation mode it computes what
        ``encode`` does. Its ``state_dict`` has the names of the original network; saved as safetensors, it is a
        ``weights`` file from which the same class makes the trained encoder.
        """
        ...


@runtime_checkable
class SoundEncoder(Protocol):
    """A frozen map from a sound to a vector of ``dimension`` numbers; as an encoder of photos but for what is here.

    ``sample_rate`` (samples a second) is what ``prepare`` wants: one channel, in [-1, 1]. ``prepare`` gives a tensor
    whose first dimension counts clips; tensors of equal shape may be stacked for ``encode``.
    """

    name: str
    dimension: int
    identity: dict[str, str]
    fingerprint: str
    versions: dict[str, str]
    sample_rate: int

    def prepare(self, wave: Float32[np.ndarray, " T"]) -> Float[Tensor, "C ..."]:
        """The sound as the clips that ``encode`` takes; runs in many threads at once."""
        ...

    def encode(self, batch: Float[Tensor, "N C ..."]) -> Float[Tensor, "N D"]:
        """The vectors of a batch of prepared sounds: float32, on the CPU, without a gradient."""
        ...


@runtime_checkable
class TrainableSoundEncoder(SoundEncoder, Protocol):
    """An encoder of sounds whose network can be trained, and which takes the trained weights back as ``weights``."""

    def network(self) -> nn.Module:
        """A fresh network to train, from a batch of clips (N ..., as ``prepare`` gives them) to vectors (N x D).

        As :meth:`TrainableEncoder.network`, but for single clips, so that a loss may be one of clips or of sounds:
        ``prepare`` has cut the sound, and what averages is up to the caller. In evaluation mode, the mean of the
        vectors of a sound's clips is what ``encode`` gives.
        """
        ...


# Heads and objectives


@runtime_checkable
class Head(Protocol):
    """Features to class log-posteriors, a drop-in for the last linear layer."""

    dimension: int
    n_classes: int

    def __call__(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C"]:
        """Log-posterior of each class, in nats."""
        ...

    def component_log_prob(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N K"]:
        """Log-density of each row together with each component, in nats; ``NoDensity`` where there is none."""
        ...


@runtime_checkable
class Groups(Protocol):
    """The components of each class: ``component_class`` says whose each one is."""

    component_class: Int[Tensor, " K"]

    def __call__(self, joint: Float[Tensor, "*N K"]) -> Float[Tensor, "*N C"]:
        """Log-sum-exp of the log-densities over the components of each class."""
        ...


@runtime_checkable
class GenerativeHead(Head, Protocol):
    """A head whose scores are densities."""

    @property
    def groups(self) -> Groups:
        """Which components are whose."""
        ...

    @property
    def density_dimension(self) -> int:
        """The number of dimensions that the density is one of."""
        ...

    def distances(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N K"]:
        """Half the squared Mahalanobis distance of each row to each component, in nats."""
        ...


@runtime_checkable
class Objective(Protocol):
    """A function of a head, rows, labels and perhaps weights of rows, to be lowered; a mean over rows in nats.

    Heads whose objectives are equal and have one hash can be trained as one batch.
    """

    def __call__(self, head: Any, x: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss."""
        ...


@runtime_checkable
class RecipeObjective(Objective, Protocol):
    """An objective that a recipe can name; a value: equal options make equal objectives.

    ``reads`` says what its rows are, as :data:`mixtura.objectives.BY_INPUT` does; ``needs_density`` that only heads
    with a density can be trained by it. The parameters of ``from_options`` are the options of a recipe's section
    ``fit`` that it takes, and ``log_prior``, the log-shares of the classes among the training rows, if it has a use
    for them. One that compares views has their number in a batch as ``views``.
    """

    reads: ClassVar[str]
    needs_density: ClassVar[bool]
    from_options: ClassVar[Any]

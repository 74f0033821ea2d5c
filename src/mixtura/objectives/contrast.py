"""Contrast: a photo's embedding against the key of another view of it, among the keys of other photos."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

NO_KEYS = -1e30
"""Log-sum over no keys, in nats: finite, so that its gradient is zero and not NaN."""


@dataclass(frozen=True)
class Keys:
    """Embeddings of unit length without a gradient, with the class and the photo of each.

    Args:
        key: the embeddings.
        label: class of each.
        row: number of its photo among the training photos.
    """

    key: Float[Tensor, "L D"]
    label: Int[Tensor, " L"]
    row: Int[Tensor, " L"]

    def of_class(self, label: int) -> "Keys":
        """The keys of one class."""
        own = self.label == label
        return Keys(self.key[own], self.label[own], self.row[own])

    def all(self) -> "Keys":
        """These keys."""
        return self


@runtime_checkable
class KeyBank(Protocol):
    """Keys of which those of a class can be asked for: those of a batch, or a queue of earlier ones."""

    def of_class(self, label: int) -> Keys:
        """The keys of one class."""
        ...

    def all(self) -> Keys:
        """The keys of all classes."""
        ...


@dataclass(frozen=True)
class Pairs:
    """What an objective of two views reads: an embedding and a key of each photo of a batch, and keys of others.

    Args:
        v: embeddings of the first view, of any length, with a gradient.
        own: keys of the second view, with classes and photos.
        bank: keys that serve as others; it may hold keys of the photos themselves.
        weight: of each row; ``None`` for equal.
    """

    v: Float[Tensor, "N D"]
    own: Keys
    bank: KeyBank
    weight: Float[Tensor, " N"] | None = None


def info_nce(
    v: Float[Tensor, "N D"],
    key: Float[Tensor, "N D"],
    others: Float[Tensor, " N"],
    temperature: float,
    center: Float[Tensor, "N D"] | None = None,
) -> Float[Tensor, " N"]:
    r"""Cross-entropy of the right key among others, in nats, one a row.

    .. math:: -\log \frac{e^{\cos(v, k) / T}}{e^{\cos(v, k) / T} + \sum_j e^{\cos(v, k_j) / T}}

    Args:
        v: embeddings.
        key: of the other view of each row.
        others: log of the sum over the other keys, in nats, from :func:`log_sum`.
        temperature: above 0.
        center: vector of unit length from which directions are seen; ``None`` for the origin.

    Source: van den Oord, Li and Vinyals, Representation learning with contrastive predictive coding, 2018, equation 4.
    """
    near = (seen_from(v, center) * seen_from(key, center)).sum(1) / temperature
    return functional.softplus(others - near)


def seen_from(x: Float[Tensor, "N D"], center: Float[Tensor, "*N D"] | None) -> Float[Tensor, "N D"]:
    """Unit vectors from ``center`` to embeddings that are scaled to unit length; from the origin where it is none."""
    unit = functional.normalize(x, dim=1)
    return unit if center is None else functional.normalize(unit - center, dim=1)


def log_sum(
    v: Float[Tensor, "N D"],
    row: Int[Tensor, " N"],
    bank: KeyBank,
    temperature: float,
    *,
    of: Int[Tensor, " N"] | None = None,
    centers: tuple[Float[Tensor, "G D"], Int[Tensor, " N"]] | None = None,
) -> Float[Tensor, " N"]:
    r"""Log of the sum of :math:`e^{\cos(v, k_j) / T}` over keys of other photos, in nats; :data:`NO_KEYS` for none.

    Rows that read the same keys from the same center share one matrix product, so each row meets its own keys only and
    no key is copied. Directions from a center cost two products of vectors more:

    .. math:: \cos(v - M, k - M) = \frac{a \cdot k - a \cdot M}{\sqrt{2 - 2\, k \cdot M}}, \qquad
        a = \frac{v - M}{\lvert v - M \rvert}

    Args:
        v: embeddings, of any length.
        row: photo of each, whose own keys are left out.
        bank: the keys.
        temperature: :math:`T`, above 0.
        of: class whose keys each row reads; ``None`` for those of all classes.
        centers: vectors of unit length from which directions are seen, and which of them each row has; ``None`` for
            the origin.
    """
    which = torch.zeros_like(row) if centers is None else centers[1]
    found, places = list[Tensor](), list[Tensor]()
    for place in _groups(torch.zeros_like(row) if of is None else of, which):
        keys = bank.all() if of is None else bank.of_class(int(of[place[0]]))
        center = None if centers is None else centers[0][centers[1][place[0]]]
        found.append(_log_sum(v[place], row[place], keys, temperature, center))
        places.append(place)
    if not found:
        return v.new_zeros(0)
    return torch.cat(found)[torch.cat(places).argsort()]


def _groups(first: Int[Tensor, " N"], second: Int[Tensor, " N"]) -> list[Int[Tensor, " B"]]:
    """The places of the rows of each pair of values that occurs."""
    if not len(first):
        return []
    pair = first * (int(second.max()) + 1) + second
    order = pair.argsort(stable=True)
    sizes = pair.unique(return_counts=True)[1]
    return list(order.split(sizes.tolist()))


def _log_sum(
    v: Float[Tensor, "B D"],
    row: Int[Tensor, " B"],
    keys: Keys,
    temperature: float,
    center: Float[Tensor, " D"] | None,
) -> Float[Tensor, " B"]:
    """The sum for rows that read the same keys from the same center."""
    if not len(keys.row):
        return v.new_full((len(v),), NO_KEYS)
    a = seen_from(v, center)
    score = a @ keys.key.T
    if center is None:
        score = score / temperature
    else:
        least = torch.finfo(v.dtype).eps  # a key on the center has no direction from it
        length = (2 - 2 * (keys.key @ center)).clamp_min(least).sqrt()
        score = score.sub_((a @ center)[:, None]).mul_(1 / (length * temperature))
    return score.masked_fill_(row[:, None] == keys.row, NO_KEYS).logsumexp(1)

"""Subclasses of known superclasses on the unit sphere: their scores, and how many subclasses each superclass gets."""

import itertools
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from mixtura.core.balanced import Assignment, Balance, ChunkedScores, assign
from mixtura.core.em import Reduce
from mixtura.core.scale import upcast
from mixtura.errors import DataError, UsageError


@runtime_checkable
class SeparableScores(ChunkedScores, Protocol):
    """Scores of which a part can be taken."""

    def within(self, rows: Int[Tensor, " B"], columns: slice) -> ChunkedScores:
        """The scores of some samples and components."""
        ...


def superclass_table(
    mean: Float[Tensor, "K D"],
    class_mean: Float[Tensor, "C D"],
    class_variance: float = 1.0,
    log_prior: Float[Tensor, " C"] | None = None,
    mixture_prior: bool = False,
) -> Float[Tensor, "C K"]:
    r"""The part of a score that does not depend on the embedding, for :class:`SubclassScores`.

    .. math:: \log p(y \mid z = k) = \operatorname{log\,softmax}_y(\hat m_k \cdot \hat M_y / \bar s^2 + \log p(y))
        \;\; [\, + \log \pi_k(y), \quad \pi_k(y) = \operatorname{softmax}_k(\hat m_k \cdot \hat M_y / \bar s^2) \,]

    Args:
        mean: subclass means; only their directions count.
        class_mean: superclass means; only their directions count.
        class_variance: :math:`\bar s^2`, in squared units of unit vectors.
        log_prior: log-probability of each superclass; equal ones if not given.
        mixture_prior: whether to add the weights of the subclasses in the mixture of each superclass.

    Source: Ni et al., Superclass-Conditional Gaussian Mixture Model for Learning Fine-Grained Embeddings, ICLR 2022,
    equations 1 to 4.
    """
    cosine = normalize(class_mean, dim=1) @ normalize(mean, dim=1).T / class_variance
    table = (cosine if log_prior is None else cosine + log_prior[:, None]).log_softmax(0)
    return table + cosine.log_softmax(1) if mixture_prior else table


@dataclass(frozen=True)
class SubclassScores:
    r"""Score of each sample, with its superclass, and subclass, computed by chunk from the embeddings.

    .. math:: s_{nk} = \hat v_n \cdot \hat m_k / s^2 + \log p(y_n \mid z = k)

    This is :math:`\log p(z = k \mid v_n) + \log p(y_n \mid z = k)` up to a constant of each sample, which no
    assignment depends on.

    Args:
        embedding: vectors of the samples; only their directions count.
        superclass: superclass of each sample.
        mean: subclass means; only their directions count.
        table: from :func:`superclass_table`.
        variance: :math:`s^2`, in squared units of unit vectors.
        rows: the samples that take part; all if not given.
    """

    embedding: Float[Tensor, "N D"]
    superclass: Int[Tensor, " N"]
    mean: Float[Tensor, "K D"]
    table: Float[Tensor, "C K"]
    variance: float = 0.1
    rows: Int[Tensor, " M"] | None = None

    def __len__(self) -> int:
        """Number of samples that take part."""
        return len(self.embedding if self.rows is None else self.rows)

    def chunk(self, start: int, stop: int) -> Float[Tensor, "B K"]:
        """Scores of some samples."""
        part = slice(start, stop) if self.rows is None else self.rows[start:stop]
        unit = normalize(upcast(self.embedding[part]), dim=1)
        table = self.table.to(unit.dtype)[self.superclass[part]]
        return torch.addmm(table, unit, self._direction.to(unit.dtype), alpha=1 / self.variance)

    def within(self, rows: Int[Tensor, " B"], columns: slice) -> "SubclassScores":
        """The scores of some samples and subclasses; no embedding is copied."""
        rows = rows if self.rows is None else self.rows[rows]
        return replace(self, mean=self.mean[columns], table=self.table[:, columns], rows=rows)

    @cached_property
    def _direction(self) -> Float[Tensor, "D K"]:
        return normalize(upcast(self.mean), dim=1).T


def share_subclasses(counts: Int[Tensor, " C"], total: int) -> Int[Tensor, " C"]:
    """Number of subclasses of each superclass, in proportion to its samples, at least one each.

    By largest remainder; of equal ones, the first superclass gets more.

    Args:
        counts: number of samples of each superclass.
        total: number of subclasses of all superclasses together.

    Raises:
        UsageError: fewer subclasses than superclasses.
        DataError: a superclass has no sample.

    >>> share_subclasses(torch.tensor([70, 25, 5]), 10)
    tensor([7, 2, 1])
    """
    if total < len(counts):
        raise UsageError(f"{total} subclasses cannot be shared by {len(counts)} superclasses. Give at least one each.")
    _require_samples(counts)
    number = [int(count) for count in counts]
    exact = [count * total / sum(number) for count in number]
    share = [max(1, int(quota)) for quota in exact]
    while sum(share) != total:
        step = 1 if sum(share) < total else -1
        open_ = [j for j in range(len(share)) if step > 0 or share[j] > 1]
        chosen = max(open_, key=lambda j: step * (exact[j] - share[j]))
        share[chosen] += step
    return torch.tensor(share, dtype=torch.int64, device=counts.device)


def owners(subclasses: Int[Tensor, " C"]) -> Int[Tensor, " K"]:
    """Superclass of each subclass, where those of a superclass are neighbors.

    >>> owners(torch.tensor([2, 1, 3]))
    tensor([0, 0, 1, 2, 2, 2])
    """
    return torch.arange(len(subclasses), device=subclasses.device).repeat_interleave(subclasses)


def assign_within(
    scores: SeparableScores,
    superclass: Int[Tensor, " N"],
    subclasses: Int[Tensor, " C"],
    balance: Balance | None = None,
    reduce: Reduce | None = None,
) -> Assignment:
    r"""Assignment of samples to the subclasses of their own superclass: one problem a superclass.

    The target of a subclass of superclass j is :math:`n_j / (n r_j)`. With equal targets for all subclasses no
    assignment would exist, since superclass j has :math:`n_j` samples and would owe :math:`n r_j / r`.
    Potentials of different superclasses cannot be compared.

    Args:
        scores: scores whose subclasses are ordered by superclass, as :func:`owners` says.
        superclass: superclass of each sample.
        subclasses: number of subclasses of each superclass, :math:`r_j`; see :func:`share_subclasses`.
        balance: as for :func:`~mixtura.core.balanced.assign`.
        reduce: as for :func:`~mixtura.core.balanced.assign`.

    Raises:
        NonFinite: a score is NaN or infinite.
        DataError: a superclass has no sample.
        UsageError: the subclasses are not those of the scores, or a superclass has none.
    """
    counts = _sizes(scores, superclass, subclasses, reduce)
    labels = torch.zeros_like(superclass, dtype=torch.int64)
    ends = [int(end) for end in subclasses.cumsum(0)]
    found: list[Assignment] = []
    for number, (start, stop) in enumerate(itertools.pairwise([0, *ends])):
        rows = (superclass == number).nonzero()[:, 0]
        part = assign(scores.within(rows, slice(start, stop)), None, balance, reduce)
        labels[rows] = part.labels + start
        found.append(part)
    return Assignment(
        labels,
        torch.cat([part.mass * share for part, share in zip(found, counts / counts.sum(), strict=True)]),
        torch.cat([part.potential for part in found]),
        found[0].regularization,
        max(part.error for part in found),
        max(part.steps for part in found),
    )


def _sizes(
    scores: ChunkedScores, superclass: Int[Tensor, " N"], subclasses: Int[Tensor, " C"], reduce: Reduce | None
) -> Float[Tensor, " C"]:
    """Samples of each superclass in all processes, after checking that everything fits together."""
    width = scores.chunk(0, 0).shape[1]
    if int(subclasses.min()) < 1 or int(subclasses.sum()) != width:
        given = [int(share) for share in subclasses]
        raise UsageError(
            f"The superclasses have {given} subclasses, and {width} are scored. "
            "Give at least one each, as many as are scored."
        )
    if len(superclass) and not 0 <= int(superclass.min()) <= int(superclass.max()) < len(subclasses):
        raise DataError(f"A superclass lies outside 0..{len(subclasses) - 1}. Number the superclasses from 0.")
    counts = torch.bincount(superclass, minlength=len(subclasses)).double()
    counts = counts if reduce is None else reduce(counts)
    _require_samples(counts)
    return counts


def _require_samples(counts: Float[Tensor, " C"] | Int[Tensor, " C"]) -> None:
    if not bool((counts > 0).all()):
        raise DataError(f"Superclass {int((counts <= 0).int().argmax())} has no sample. Leave it out.")

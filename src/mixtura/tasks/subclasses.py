"""Find kinds within labeled classes; returns the kinds of each class, and why a class stays whole."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from mixtura.core.subclasses import search
from mixtura.core.subclasses.one_gaussian import holm
from mixtura.core.subclasses.search import KindsOfClass, Rules
from mixtura.core.subclasses.spaces import ClassRows, class_rows
from mixtura.errors import LabelError, NoInput, NonFinite, UsageError
from mixtura.features.projection import L2
from mixtura.features.records import Features, Rows
from mixtura.formats import count as counted
from mixtura.names import find, is_outside, nearest
from mixtura.pipeline.training_set import groups_of
from mixtura.tasks.cluster import margins
from mixtura.tasks.subclass_methods import NONE_FOUND, Asked, LabeledRows, Method, Training

METHODS = {
    "mixture": "mixtura.tasks.subclass_methods:mixture",
    "kmeans": "mixtura.tasks.subclass_methods:kmeans",
    "hdbscan": "mixtura.tasks.subclass_methods:hdbscan",
    "dendrogram": "mixtura.tasks.subclass_methods:dendrogram",
    "scgm": "mixtura.tasks.learned_kinds:scgm",
}
"""Methods that find kinds; also accepted is ``package.module:function``, a ``Method`` of ``subclass_methods``."""

TRAINED = frozenset({"scgm"})
"""Methods that are trained, so that epochs and an embedder mean something."""

IN_NO_KIND = 0
"""Number for items of no kind: those of a class that stays whole, and those between kinds."""


@dataclass(frozen=True)
class Kind:
    """One kind: its number in the class from 1, largest first, and its rows, most typical first.

    ``stability`` is in [0, 1]; ``borderline`` holds the rows of least margin first.
    """

    number: int
    size: int
    stability: float
    typical: tuple[int, ...]
    borderline: tuple[int, ...]


@dataclass(frozen=True)
class ClassKinds:
    """What was found in one class.

    ``limit`` is the largest number of kinds that can be asked for (1: too few of its ``independent`` photos).
    ``count`` is the number of kinds, ``likeliest`` that of the largest held-out density, ``stability`` the least of the
    kinds found or rejected (``None`` if there are none), ``p_value`` that against one Gaussian, and ``corrected`` the
    same by Holm over all classes that could be judged. ``reason`` is a code, ``why`` a sentence.
    """

    name: str
    size: int
    limit: int
    independent: int
    count: int
    likeliest: int
    stability: float | None
    p_value: float | None
    corrected: float | None
    reason: str
    why: str
    kinds: tuple[Kind, ...]


@dataclass(frozen=True)
class Subclasses:
    """The kinds of N items: ``number`` N from 1 within each class (0: none), ``probability`` N (NaN if unknown).

    ``margin`` N is in [-1, 1]: how much nearer an item is to the center of its own kind than to the next, as a share.
    """

    features: Features
    method: str
    classes: tuple[ClassKinds, ...]
    number: Int[np.ndarray, " N"]
    probability: Float[np.ndarray, " N"]
    margin: Float[np.ndarray, " N"]
    seconds: float

    @property
    def split(self) -> tuple[ClassKinds, ...]:
        """The classes that hold several kinds."""
        return tuple(one for one in self.classes if one.count > 1)


def run(
    features: Features,
    method: str = "mixture",
    classes: Sequence[str] = (),
    count: int | None = None,
    rules: Rules = Rules(),  # noqa: B008 - a frozen value
    training: Training = Training(),  # noqa: B008 - a frozen value
) -> Subclasses:
    """Find the kinds within each class, by features of unit length.

    Args:
        features: of the items, with a label each.
        method: a name in ``METHODS``, or ``package.module:function``.
        classes: the classes to look into; all if there are none.
        count: kinds of each class; ``None`` lets the method choose, and the answer may be one.
        rules: limits, levels and seed.
        training: of a method that is trained.

    Raises:
        NoInput: there are no items.
        LabelError: an item has no label.
        NonFinite: a feature is NaN or infinite.
        UsageError: there is no such class, or the method takes no number of kinds, or is not trained.
        UnknownName: there is no such method.
    """
    began = time.perf_counter()
    make: Method = find(METHODS, method)
    if training != Training() and method not in TRAINED and not is_outside(method):
        raise UsageError(f"{method} is not trained. Leave out --epochs and --embedder, or use --method scgm.")
    names = features.classes
    asked = _asked(features, classes)
    label = torch.from_numpy(features.label_index(names))
    unit = L2()(torch.from_numpy(features.embedding))
    rows = LabeledRows(unit, label, tuple(class_rows(unit, label, torch.from_numpy(groups_of(features)), len(names))))
    answers = make(rows, Asked(asked, count, rules, training))
    number = np.zeros(len(features), dtype=np.int64)
    probability, margin = np.full(len(features), np.nan), np.zeros(len(features))
    corrected = _corrected(answers)
    found: list[ClassKinds] = []
    for c, answer, adjusted in zip(asked, answers, corrected, strict=True):
        own, kind = rows.classes[c].row.numpy(), answer.kind.numpy()
        if answer.count > 1:
            number[own], probability[own] = kind + 1, answer.probability.double().clamp(max=1).numpy()
        distance, apart = margins(rows.classes[c].x.numpy(), kind)
        margin[own] = apart
        kinds = _kinds(answer, own, distance, apart)
        found.append(_class(names[c], rows.classes[c], answer, adjusted, kinds, (count, rules)))
    return Subclasses(features, method, tuple(found), number, probability, margin, time.perf_counter() - began)


def _asked(features: Features, classes: Sequence[str]) -> tuple[int, ...]:
    """The numbers of the classes to look into.

    Raises:
        NoInput, LabelError, NonFinite, UsageError: see :func:`run`.
    """
    if not len(features):
        raise NoInput("There are no items. Give photos in one folder per class.")
    bare = [id for id, label in zip(features.id, features.label, strict=True) if label is None]
    if bare:
        raise LabelError(
            f"{len(bare):,} of {len(features):,} items have no class, the first is {bare[0]!r}. Kinds are looked for "
            "within classes: label these items, or group items without labels with mixtura cluster."
        )
    broken = np.flatnonzero(~np.isfinite(features.embedding).all(1))
    if len(broken):
        raise NonFinite(
            f"The features of {features.id[broken[0]]!r} hold NaN or infinity, as those of {len(broken):,} of "
            f"{len(features):,} items. Leave these items out, or compute their features again."
        )
    names = features.classes
    for name in classes:
        if name not in names:
            raise UsageError(f"There is no class {name!r}. {nearest(name, names)}")
    return tuple(c for c, name in enumerate(names) if not classes or name in classes)


def _corrected(answers: Sequence[KindsOfClass]) -> list[float | None]:
    """Holm's correction of each p-value, over all classes that could be judged."""
    judged = [one for one in answers if one.reason != search.FEW_ROWS]
    adjusted = holm([1.0 if one.p_value is None else one.p_value for one in judged])
    by_answer = {id(one): value for one, value in zip(judged, adjusted, strict=True)}
    return [None if one.p_value is None else by_answer[id(one)] for one in answers]


def _kinds(
    answer: KindsOfClass,
    own: Int[np.ndarray, " M"],
    distance: Float[np.ndarray, " M"],
    margin: Float[np.ndarray, " M"],
) -> tuple[Kind, ...]:
    """The kinds of a split class; none of a whole one."""
    if answer.count < 2:
        return ()
    found: list[Kind] = []
    for k, stable in enumerate(answer.stability):
        mine = np.flatnonzero(answer.kind.numpy() == k)
        typical, borderline = (
            tuple(own[mine[np.argsort(value[mine], kind="stable")]].tolist()) for value in (distance, margin)
        )
        found.append(Kind(k + 1, len(mine), stable, typical, borderline))
    return tuple(found)


def _class(
    name: str,
    rows: ClassRows,
    answer: KindsOfClass,
    corrected: float | None,
    kinds: tuple[Kind, ...],
    asked: tuple[int | None, Rules],
) -> ClassKinds:
    stable = min(answer.stability) if answer.stability else None
    return ClassKinds(
        name, len(rows.row), search.most_kinds(rows, asked[1]), rows.n_units, answer.count, answer.likeliest, stable,
        answer.p_value, corrected, answer.reason, _why(rows, answer, stable, *asked), kinds,
    )  # fmt: skip


def _why(rows: ClassRows, answer: KindsOfClass, stable: float | None, count: int | None, rules: Rules) -> str:
    """Why a class is split or whole, in a sentence."""
    if answer.reason == search.FEW_ROWS:
        limit = search.most_kinds(rows, rules)
        have = f"{counted(len(rows.row), 'photo')} in {counted(rows.n_units, 'independent group')}"
        have += " is" if len(rows.row) == 1 else " are"
        if count is not None and limit > 1:
            return f"whole: {have} too few for {count} kinds; {limit} is the most"
        need = f"two kinds of {rules.min_rows} photos, {search.MIN_UNITS} of them independent"
        return f"whole: {have} too few to judge a split; it takes {need}"
    if answer.reason == search.UNSTABLE:
        found = f"{answer.likeliest} kinds are likeliest, but half of the photos find others"
        return f"whole: {found} (stability {stable:.2f})"
    sentences = {
        search.SPLIT: f"{answer.count} kinds",
        search.ASKED: counted(answer.count, "kind") + ", as asked for",
        search.ONE_IS_LIKELIER: "whole: one Gaussian describes held-out photos best",
        search.ONE_GAUSSIAN: "whole: samples of one Gaussian look as split",
        NONE_FOUND: "whole: the method finds no two kinds",
    }
    return sentences[answer.reason]


def digest_of(features: Rows) -> str:
    """A hash of the items, their classes and their photos: the same for the same collection in any order."""
    rows = sorted(zip(features.id, map(str, features.label), features.sha256, strict=True))
    return hashlib.sha256("\n".join("\t".join(row) for row in rows).encode()).hexdigest()

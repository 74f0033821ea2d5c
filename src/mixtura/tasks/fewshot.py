"""Measure how well new classes are learned from a few items: many small episodes, the same for every classifier."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from mixtura.datasets.episodes import (
    Design,
    Episode,
    EpisodeList,
    Pool,
    classes_of_split,
    draw,
    require_disjoint,
    split_classes,
)
from mixtura.datasets.items import SPLITS
from mixtura.errors import LabelError, MixturaError, UsageError
from mixtura.features.records import Features
from mixtura.formats import count
from mixtura.metrics.intervals import t_interval
from mixtura.model import bundle
from mixtura.names import find, is_outside
from mixtura.pipeline import factory, training_set
from mixtura.recipe import Recipe
from mixtura.records.few_shot import INDUCTIVE, TRANSDUCTIVE, FewShot, FewShotResult
from mixtura.sections import DataSection, EncoderSection
from mixtura.tasks.evaluate import features_of
from mixtura.tasks.few_shot_classifiers import Material, Space
from mixtura.tasks.few_shot_copies import with_copies

CLASSIFIERS = {
    "prototype": "mixtura.tasks.few_shot_classifiers:prototype",
    "raw-prototype": "mixtura.tasks.few_shot_classifiers:raw_prototype",
    "nearest": "mixtura.tasks.few_shot_classifiers:nearest",
    "cosine": "mixtura.tasks.few_shot_classifiers:cosine",
    "knn": "mixtura.tasks.few_shot_classifiers:knn",
    "logistic": "mixtura.tasks.few_shot_classifiers:logistic",
    "sgd-logistic": "mixtura.tasks.few_shot_classifiers:sgd_logistic",
    "gaussian": "mixtura.tasks.few_shot_classifiers:gaussian",
    "calibration": "mixtura.tasks.few_shot_classifiers:calibration",
}
"""Classifiers; also accepted is ``package.module:function``, which makes a ``Space`` from a ``Material``."""

TRANSDUCTIVE_CLASSIFIERS = {
    "prototype": "mixtura.tasks.few_shot_classifiers:transductive_prototype",
    "gaussian": "mixtura.tasks.few_shot_classifiers:transductive_gaussian",
}
"""Those that also classify all queries of an episode together."""

ONLY_BY_NAME = frozenset({"sgd-logistic"})
"""Classifiers that take minutes with many classes, so that "all" leaves them out."""

OWN_SPACE = frozenset({"raw-prototype", "gaussian", "calibration"})
"""Classifiers that read the features in a way of their own, whether or not others scale them to unit length."""

NEED_BASE = frozenset({"gaussian", "calibration"})
BACKBONE, EMBEDDER = TAPS = "backbone", "embedder"
"""What is read of a trained network: its vectors, or what its embedder makes of them."""

AUTO, BY_SPLIT = "auto", "split"
"""Base classes as they are proposed, and those of the data's train part; other values are numbers."""

DEFAULT_BASE = 0.5
CHUNK_NUMBERS = 40_000_000  # of float32 that a chunk of episodes may need: 160 MB


def of_features(features: Features, base: str, seed: int) -> Material:
    """What to draw episodes from, where base classes come from the same data; no class is base and novel.

    Args:
        features: labeled items.
        base: how many base classes, below 1 their share, drawn with the seed; ``split`` for those of the train part,
            whose test part then has the novel ones; ``auto`` for ``split`` where the parts have different classes, and
            else a half.
        seed: of the draw.

    Raises:
        UsageError: too many base classes, or ``base`` is no number.
        LabelError: there are no labels, or a class is in both parts.
    """
    labeled = training_set.labeled(features)
    known, novel = _classes(labeled, base, seed)
    section = factory.section_of(features.identity, EncoderSection())
    return Material(_of(labeled, novel), _of(labeled, known) if known else None, Recipe(), section)


def _classes(features: Features, base: str, seed: int) -> tuple[Sequence[str], Sequence[str]]:
    """Base and novel classes."""
    if base in (AUTO, BY_SPLIT):
        try:
            return classes_of_split(features.label, features.split)
        except LabelError:
            if base == BY_SPLIT:
                raise
    try:
        size = DEFAULT_BASE if base == AUTO else float(base)
    except ValueError:
        size = -1.0
    if not (0 <= size < 1 or (size >= 1 and size.is_integer())):
        raise UsageError(f"--base is {base!r}. Give a number of classes, a share below 1, auto or split.")
    return split_classes(features.classes, size, seed)


def _of(features: Features, classes: Sequence[str]) -> Features:
    kept = set(classes)
    return features.select(np.array([label in kept for label in features.label], dtype=bool))


def of_model(path: Path, data: DataSection | None = None) -> Material:
    """What to draw episodes from, where the base classes are those of a model: classes that it does not know.

    Args:
        path: of the model.
        data: labeled items of other classes; if left out, those that its fit kept out of the catalog (data.unknown).

    Raises:
        NoInput: there is no model, or its features are gone.
        UsageError: without ``data``, the model knows all classes.
        LabelError: the model knows classes of ``data``.
    """
    model, recipe = bundle.from_pretrained(path), bundle.recipe_of(path)
    stored = training_set.stored(recipe, model.identity)
    base = training_set.train_part(stored, model.classes)
    if data is not None:
        features, problems = features_of(model, recipe, data, path)
        novel = training_set.labeled(features)
        require_disjoint(set(model.classes), set(novel.classes))
        return Material(novel, base, recipe, model.encoder, model, problems, photos=_photos(data))
    novel = _of(stored, sorted(set(stored.classes) - set(model.classes)))
    if not len(novel):
        raise UsageError(
            f"The model knows all {len(model.classes)} classes of its data, and few-shot classes must be new to it. "
            f"Give items of others after it, as in: mixtura fewshot {path} DATA."
        )
    return Material(novel, base, recipe, model.encoder, model, photos=_photos(recipe.data))


def _photos(data: DataSection) -> DataSection | None:
    return None if data.kind == factory.FEATURES_KIND else data


def of_part(material: Material, part: str) -> Material:
    """The same with novel items of one part of the split only.

    Raises:
        UsageError: there is no such part, or no novel item is in it.
    """
    if part not in SPLITS:
        raise UsageError(f"There is no part {part!r} of the split. Give one of {', '.join(SPLITS)}, or leave it out.")
    if part not in material.novel.split:
        raise UsageError(f"No item to draw episodes from is in the part {part!r} of the split. Leave out --part.")
    return replace(material, novel=material.novel.select_split(part))


def drawn(material: Material, protocol: str, design: Design, skip_small: bool = False) -> EpisodeList:
    """Episodes of novel items; see :func:`mixtura.datasets.episodes.draw`.

    Args:
        material: where from.
        protocol: how.
        design: of what size.
        skip_small: leave out classes with fewer items than an episode needs, instead of refusing.

    Raises:
        UsageError: no class is left, or see :func:`mixtura.datasets.episodes.draw`.
    """
    novel = material.novel
    pool = Pool.of(novel.id, novel.label, novel.superlabel, novel.split)
    if not skip_small:
        return draw(protocol, pool, design)
    large = pool.with_at_least(design.needed)
    if not large.classes:
        raise UsageError(
            f"--skip-small leaves none of the {count(len(pool.classes), 'class', 'classes')}: an episode needs "
            f"{design.shot} + {design.query} items (--shot + --query) of each, and the largest has "
            f"{max(pool.sizes.values())}. Lower them."
        )
    return draw(protocol, large, design)


def run(
    material: Material, listed: EpisodeList, classifiers: Sequence[str], transductive: bool = False, copies: int = 0
) -> FewShot:
    """Accuracy of classifiers on the same episodes.

    Args:
        material: the features.
        listed: episodes of its novel items.
        classifiers: names in ``CLASSIFIERS``, or ``package.module:function``.
        transductive: let them see all queries of an episode together, not each alone; names are then those in
            ``TRANSDUCTIVE_CLASSIFIERS``.
        copies: learn from so many augmented copies of each support photo in its place; 0 for the photo itself.

    Raises:
        UnknownName: there is no such classifier.
        UsageError: one needs base classes and there are none, is no transductive one, or is not mixtura's and fails;
            or the material has ``normalize`` off, and each reads the features in a way of its own.
        NoInput, LabelError: the list names items that are not there, or of another class.
    """
    table = TRANSDUCTIVE_CLASSIFIERS if transductive else CLASSIFIERS
    if alone := next((name for name in classifiers if name in CLASSIFIERS and name not in table), None):
        raise UsageError(
            f"{alone} classifies each query alone. Together, these do: {', '.join(table)}. Choose of them, or leave "
            "out --transductive."
        )
    if not material.normalize and OWN_SPACE.issuperset(classifiers):
        raise UsageError(
            f"Without unit length, nothing changes for {' and '.join(classifiers)}. Leave out --no-normalize."
        )
    made = [(name, find(table, name)) for name in dict.fromkeys(classifiers)]
    require_disjoint(set() if material.base is None else set(material.base.classes), _names(listed))
    located = listed.located(material.novel.id, material.novel.label)
    read = material
    if copies:
        read, located = with_copies(material, located, copies)
    read = read.embedded()
    results: list[FewShotResult] = []
    for name, make in made:
        began = time.perf_counter()
        with torch.inference_mode():
            space = _space(name, make, read)
            prepared = time.perf_counter()
            accuracy = accuracies(space, located.episodes)
        first = results[0].accuracy if results else accuracy
        times = (time.perf_counter() - prepared, prepared - began)
        results.append(_result(name, accuracy, accuracy - first, times))
    names = _names(located)
    told = {"tap": BACKBONE if material.embedder is None else EMBEDDER, "fingerprint": material.novel.fingerprint}
    return FewShot(
        protocol=listed.protocol,
        way=np.array([episode.way for episode in listed.episodes]),
        shot=listed.design.shot,
        query=listed.design.query,
        seed=listed.design.seed,
        classes=len(names),
        items=sum(label in names for label in material.novel.label),
        base=0 if material.base is None else len(material.base.classes),
        results=tuple(results),
        facts=_facts(read) | told | {"copies": copies},
        notes=_notes(material, names),
        setting=TRANSDUCTIVE if transductive else INDUCTIVE,
    )


def _space(name: str, make: Callable[[Material], Space], material: Material) -> Space:
    """What a classifier makes of the features; one that is not mixtura's may fail.

    Raises:
        UsageError: it does.
    """
    if not is_outside(name):
        return make(material)
    try:
        space = make(material)
    except MixturaError:
        raise
    except Exception as error:  # whatever the function of a user raises
        raise UsageError(
            f"The classifier {name} has failed: {error}. It takes a Material and returns a Space."
        ) from error
    if not isinstance(space, Space):
        raise UsageError(f"The classifier {name} has returned {type(space).__name__} and not a Space. Return one.")
    return space


def _names(listed: EpisodeList) -> set[str]:
    """The classes that occur in a list."""
    return {listed.classes[c] for episode in listed.episodes for c in episode.classes}


def _notes(material: Material, names: set[str]) -> tuple[str, ...]:
    said = () if material.embedder is None else ("The features are read through the embedder of the network.",)
    if left_out := len(set(material.novel.classes) - names):
        classes = count(len(names), "class", "classes")
        said = (*said, f"{classes} occur in the episodes, {left_out} of the new ones do not.")
    return said


def _facts(material: Material) -> dict[str, object]:
    facts: dict[str, object] = {"encoder": material.encoder.name, "fingerprint": material.novel.fingerprint}
    if "enrolling" in vars(material):
        told = material.enrolling.model.facts
        facts["base"] = {key: told.get(key) for key in ("projection", "family", "n_components", "shrinkage")}
    return facts | {"normalized": material.normalize, "threads": torch.get_num_threads()}


def _result(
    name: str, accuracy: Float[np.ndarray, " E"], difference: Float[np.ndarray, " E"], times: tuple[float, float]
) -> FewShotResult:
    mean, half = t_interval(accuracy.tolist())
    gap, gap_half = t_interval(difference.tolist())
    low, high = np.clip((mean - half, mean + half), 0, 1).tolist()
    none = not difference.any()
    return FewShotResult(name, accuracy, mean, low, high, gap, np.nan if none else gap_half, *times)


def accuracies(space: Space, episodes: Sequence[Episode]) -> Float[np.ndarray, " E"]:
    """Share of right queries of each episode; episodes of one shape are done together, a chunk at a time."""
    shapes = np.array([[*episode.support.shape, episode.query.shape[1]] for episode in episodes])
    found = np.zeros(len(episodes))
    for way, shot, query in np.unique(shapes, axis=0).tolist():
        alike = np.flatnonzero((shapes == (way, shot, query)).all(1))
        size = max(1, CHUNK_NUMBERS // (way * (shot + query) * space.numbers))
        for start in range(0, len(alike), size):
            chunk = alike[start : start + size]
            support = np.stack([episodes[place].support for place in chunk])
            queries = np.stack([episodes[place].query for place in chunk])
            found[chunk] = _right(space, support, queries)
    return found


def _right(space: Space, support: Int[np.ndarray, "E W S"], query: Int[np.ndarray, "E W Q"]) -> Float[np.ndarray, " E"]:
    rows = (torch.from_numpy(index) for index in (support, query.reshape(len(query), -1)))
    scores = space.scores(*(space.rows[index] for index in rows))
    label = torch.arange(query.shape[1]).repeat_interleave(query.shape[2])
    return (scores.argmax(2) == label).double().mean(1).numpy()

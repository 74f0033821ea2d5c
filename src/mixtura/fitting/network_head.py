"""The head on a network that is trained: a linear one that only serves for it, or that of the recipe, jointly."""

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mixtura.core.cross_fitting import validation_rows
from mixtura.errors import DataError, UsageError
from mixtura.fitting import heads
from mixtura.fitting.heads import HeadSpec
from mixtura.heads import HEADS
from mixtura.heads.base import Head
from mixtura.names import find
from mixtura.recipe import Recipe
from mixtura.sections import GRADIENT
from mixtura.training import distributed
from mixtura.training.checkpoint import Fact
from mixtura.training.classifier import LABEL, Classifier
from mixtura.training.hooks import Hook
from mixtura.training.setup import Batch
from mixtura.training.state import own_random_numbers

JOINT = "joint"
PLAN_SHARE = 0.2  # of the training photos, by which shrinkage, family and temperature of the first head are chosen


def head_spec(recipe: Recipe, dimension: int) -> HeadSpec | None:
    """Return the head that is trained with the network, checked before any photo is read; ``None`` for ``refit``.

    Args:
        recipe: with its section ``train``.
        dimension: D, the length of the network's vectors.

    Raises:
        UnknownName: there is no such head.
        UsageError: the head or an option of it does not fit, or what is to be trained alone has no parameters.
    """
    section = recipe.train
    if section is None or section.head != JOINT:
        return None
    spec = heads.spec_of(recipe.head.name, GRADIENT, recipe.head.n_components, recipe.head, recipe.seed)
    alone = "train.trainable: head" if section.trainable == "head" else "train.unfreeze" if section.unfreeze else ""
    if alone and not _is_trained(spec, dimension):
        raise UsageError(
            f"The head {recipe.head.name!r} has no parameter that a gradient trains, so it cannot be trained alone. "
            f"Leave out {alone}."
        )
    return spec


def _is_trained(spec: HeadSpec, dimension: int) -> bool:
    """Whether a head has parameters that are trained."""
    kind: type[Head] = find(HEADS, spec.kind)
    taken = inspect.signature(kind).parameters
    given = {name: value for name, value in spec.options.items() if name in taken}
    if spec.family == "auto":
        given.pop("family", None)  # all of them have parameters
    with torch.device("meta"):
        made = kind(dimension, 2, **given)
    return any(parameter.requires_grad for parameter in made.parameters())


def facts_of(spec: HeadSpec | None) -> dict[str, Fact]:
    """What must be equal of a jointly trained head when a run goes on."""
    if spec is None:
        return {}
    return {f"head.{key}": str(value) for key, value in asdict(spec).items()}


def fitted_head(spec: HeadSpec, x: Float[Tensor, "N D"], labels: Int[Tensor, " N"], n_classes: int) -> Head:
    """Return a head fitted to vectors in closed form or by EM, from which joint training begins.

    A share of the vectors chooses what the recipe leaves open, and the temperature; then all of them are fitted.

    Raises:
        UsageError: the head is too large, or a class has too few photos for its components.
        DataError: there are too few vectors.
    """
    judge = validation_rows(labels, torch.arange(len(labels)), PLAN_SHARE, spec.seed)
    learned = torch.bincount(labels[~judge], minlength=n_classes)
    judge &= learned[labels] > 0
    if not bool(judge.any()):
        raise DataError(
            f"{len(labels)} training photos are too few for train.head: joint. Give two or more a class, or use refit."
        )
    folds = heads.holdout_split(x, labels, judge, n_classes)
    heads.check_components(spec.components, folds)
    with own_random_numbers(x.device, spec.seed):  # a new head is random before initialization
        return heads.reinitialize(spec, folds, heads.initialize(spec, folds)).train()  # it follows the network


@torch.no_grad()
def drawn_vectors(network: nn.Module, batches: Sequence[Batch], seed: int) -> tuple[Tensor, Tensor]:
    """Vectors and labels of photos by a network whose weights are drawn, as it gives them in training.

    The statistics of its batch norms are those of new ones, so each batch has its own; the network stays as it is.
    """
    trial = copy.deepcopy(network).train()
    device = next(network.parameters()).device
    with own_random_numbers(device, seed):
        vectors = [trial(batch["x"].to(device)).float().cpu() for batch in batches]
    return torch.cat(vectors), torch.cat([batch[LABEL] for batch in batches])


def hooks_of(module: nn.Module) -> dict[str, Hook]:
    """The hook that a head needs which learns from each batch without a gradient."""
    if not isinstance(module, Classifier) or type(module.head).update_memory is Head.update_memory:
        return {}
    return {"memory": HeadMemory(module)}


class HeadMemory:
    """A hook for heads that learn from each batch without a gradient, such as ``online``; it holds no state itself.

    Args:
        classifier: a network with such a head, whose buffers are state of the network.
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._seen: list[tuple[Tensor, Tensor]] = []
        classifier.head.register_forward_pre_hook(self._keep_vectors)
        classifier.register_forward_pre_hook(self._keep_labels)
        self._labels: Tensor | None = None

    def _keep_labels(self, module: nn.Module, inputs: tuple[Batch]) -> None:
        self._labels = inputs[0][LABEL] if module.training else None

    def _keep_vectors(self, module: nn.Module, inputs: tuple[Tensor]) -> None:
        if self._labels is not None:
            self._seen.append((inputs[0].detach().float(), self._labels))
            self._labels = None

    def tensors(self) -> Mapping[str, Tensor]:
        """Nothing: what the head has learned is in its buffers."""
        return {}

    def after_step(self, step: int) -> None:
        """Have the head learn from the batch, of all processes, part by part."""
        head: Any = self._classifier.head
        seen, self._seen = self._seen, []
        device = next(self._classifier.network.parameters()).device
        x = torch.cat([one for one, _ in seen]) if seen else torch.zeros(0, head.dimension, device=device)
        labels = torch.cat([one for _, one in seen]) if seen else torch.zeros(0, dtype=torch.int64, device=device)
        x, labels = distributed.gathered(x), distributed.gathered(labels)
        if len(x):
            head.update_memory(x, labels)

    def averaged(self) -> Mapping[str, Tensor]:
        """Nothing."""
        return {}

"""From a mixture of subclasses to one whose classes own them."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import temperature
from mixtura.core.cross_fitting import OutOfFold, content_folds
from mixtura.core.mixture import Mixture
from mixtura.fitting.fitted import Fitted
from mixtura.model.subclasses import Subclasses


def owned_by_classes(
    fitted: Fitted, names: tuple[str, ...], class_parent: Int[Tensor, " S"], x: Float[Tensor, "N D"]
) -> Fitted:
    """The same densities, with classes that own subclasses, which own components.

    Args:
        fitted: whose classes are the subclasses, in the order of their classes.
        names: of the subclasses.
        class_parent: the class of each.
        x: the training samples.
    """
    held, component_subclass = fitted.out_of_fold, fitted.mixture.component_class
    assert component_subclass is not None
    above = held.of_parents(class_parent)
    tempered = _temperature(held.counted, class_parent, x)
    return replace(
        fitted,
        mixture=regrouped(fitted.mixture, class_parent),
        out_of_fold=above,
        subclasses=Subclasses(names, class_parent, component_subclass, tempered),
        kind=_best_of_each(held.class_log_prob, class_parent),
    )


def _best_of_each(log_prob: Float[Tensor, "M S"], class_parent: Int[Tensor, " S"]) -> Int[Tensor, "M C"]:
    """The most probable subclass of each sample within each class."""
    members = [(class_parent == c).nonzero()[:, 0] for c in range(int(class_parent.max()) + 1)]
    return torch.stack([own[log_prob[:, own].argmax(1)] for own in members], 1)


def regrouped(mixture: Mixture, class_parent: Int[Tensor, " C"]) -> Mixture:
    """The same components, owned by the superclasses of their classes."""
    assert mixture.component_class is not None
    owner = class_parent[mixture.component_class]
    return replace(mixture, component_class=owner, n_classes=int(class_parent.max()) + 1)


def _temperature(held: OutOfFold, class_parent: Int[Tensor, " S"], x: Float[Tensor, "N D"]) -> float:
    """The temperature of the subclasses given the class; 1 if no class has several."""
    several = torch.bincount(class_parent)[class_parent] > 1
    held = held.select(several[held.label])
    if not len(held.row):
        return 1.0
    other = class_parent != class_parent[held.label][:, None]
    scores = held.class_log_prob.double().masked_fill(other, -torch.inf)
    half = content_folds(x[held.row], held.label, 2, 0) == 0
    return temperature.fit(scores, held.label, held.weight, half)

"""Checks of a recipe's solver, objective and their options, before any sample is read."""

import inspect
from collections.abc import Sequence

import torch

from mixtura.errors import UsageError
from mixtura.fitting import heads
from mixtura.recipe import Recipe
from mixtura.sections import GRADIENT, FitSection


def refuse_training(recipe: Recipe) -> None:
    """For what trains no network.

    Raises:
        UsageError: the recipe has a section ``train`` or ``search``.
    """
    if recipe.train is not None:
        raise UsageError(
            "The recipe has a section 'train', which trains a network. Use mixtura train, or rename the section to "
            "'fit' if it was meant for the head."
        )
    if recipe.search is not None:
        raise UsageError("The recipe has a section 'search', which is that of mixtura train. Leave it out.")


def check_fit(spec: heads.HeadSpec, section: FitSection, objectives: Sequence[str]) -> None:
    """Check that a head supports the ``fit`` section of a recipe; call it before reading samples.

    Args:
        spec: the head.
        section: how to fit it.
        objectives: all objectives to try; each option must belong to at least one of them.

    Raises:
        UnknownName, UsageError: see :func:`mixtura.fitting.heads.objective_of`; also an objective or an option
            without an effect, and a learning rate that would rise.
    """
    if section.final_learning_rate > section.learning_rate:
        raise UsageError(
            f"fit.final_learning_rate {section.final_learning_rate:g} is above fit.learning_rate "
            f"{section.learning_rate:g}, and the learning rate falls. Lower it."
        )
    if spec.solver != GRADIENT:
        check_no_objective(objectives)
        return
    for name in objectives:
        check_objective(spec, section, name)
    check_objective_options(section, objectives)


def check_no_objective(objectives: Sequence[str]) -> None:
    """Check that no objective is named where no solver lowers one.

    Raises:
        UsageError: one is.
    """
    wrong = [name for name in objectives if name != FitSection().objective]
    if wrong:
        raise UsageError(f"Only the solver 'gradient' lowers the objective {wrong[0]!r}. Add --solver gradient.")


def check_objective(spec: heads.HeadSpec, section: FitSection, objective: str) -> None:
    """Check that a head can be trained by an objective.

    Raises:
        UnknownName, UsageError: see :func:`mixtura.fitting.heads.objective_of`.
    """
    weights = section.class_weight
    classes = len(weights) if isinstance(weights, tuple) else 2
    heads.objective_of(spec, section.model_copy(update={"objective": objective}), torch.arange(classes), classes)


def check_objective_options(section: FitSection, objectives: Sequence[str]) -> None:
    """Check that each option of an objective belongs to at least one of the objectives to try.

    Raises:
        UsageError: one does not.
    """
    default = FitSection()
    kinds = map(heads.objective_by_name, objectives)
    taken = {option for kind in kinds for option in inspect.signature(kind.from_options).parameters}
    for key in heads.OBJECTIVE_KEYS:
        if key not in taken and getattr(section, key) != getattr(default, key):
            raise UsageError(f"The objective {', '.join(map(repr, objectives))} takes no fit.{key}. Leave it out.")

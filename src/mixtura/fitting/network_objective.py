"""What training of a network lowers, and what it is validated by: the table of objectives, made for the loop."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from jaxtyping import Float, Int
from torch import Tensor, nn

from mixtura.core import temperature
from mixtura.datasets.episodes import Episode
from mixtura.fitting.network_angular import FindsSubclasses
from mixtura.fitting.network_contrast import ContrastTraining
from mixtura.names import find
from mixtura.objectives import EPISODE_OBJECTIVES, PHOTO_OBJECTIVES
from mixtura.training import episodic
from mixtura.training.classifier import cross_entropy, scored
from mixtura.training.reconstructor import loss_of, results_of
from mixtura.training.setup import Batch, Loss
from mixtura.training_sections import RECONSTRUCTION, EpisodesSection, TrainSection


@dataclass(frozen=True)
class NetworkObjective:
    """The loss of a batch, and the results of validation batches, of which ``loss`` is to be lowered.

    ``logged`` are the names of what the loss logs beside itself.
    """

    loss: Callable[[nn.Module, Batch], Loss]
    results: Callable[[nn.Module, Iterable[Batch]], Mapping[str, float]]
    logged: tuple[str, ...] = ()


def objective_of(
    section: TrainSection,
    validation: Sequence[Episode] = (),
    subclasses: FindsSubclasses | None = None,
    contrast: ContrastTraining | None = None,
) -> NetworkObjective:
    """Return the objective that a section names.

    Args:
        section: of the recipe.
        validation: episodes to validate by, where it trains on episodes.
        subclasses: what finds subclasses, where it does.
        contrast: what compares views, where it does.
    """
    if contrast is not None:
        return NetworkObjective(contrast.loss, partial(_contrast_results, contrast), contrast.logged)
    if subclasses is not None:
        return NetworkObjective(subclasses.loss, _class_results, subclasses.logged)
    if section.episode_design is not None:
        return _of_episodes(section, section.episode_design, validation)
    if section.objective != RECONSTRUCTION:
        return NetworkObjective(cross_entropy, _class_results, ("accuracy",))
    make = find(PHOTO_OBJECTIVES, section.objective).from_options
    made = make() if section.pixels is None else make(section.pixels)
    return NetworkObjective(loss_of(made), results_of(made))


def _of_episodes(section: TrainSection, design: EpisodesSection, validation: Sequence[Episode]) -> NetworkObjective:
    make = find(EPISODE_OBJECTIVES, section.objective).from_options
    made = make() if section.distance is None else make(section.distance)

    def results(module: nn.Module, batches: Iterable[Batch]) -> Mapping[str, float]:
        return class_results(*episodic.scored(made, validation, module, batches))

    return NetworkObjective(episodic.loss_of(made, design.shot), results, ("accuracy",))


def class_results(scores: Float[Tensor, "N C"], labels: Int[Tensor, " N"]) -> dict[str, float]:
    """Mean loss in nats, at its best temperature, and accuracy.

    The fit that follows finds a temperature of its own, so how sure the head is counts for nothing.
    """
    loss = temperature.nll(scores, labels, temperature.best(scores, labels))
    return {"loss": loss, "accuracy": float((scores.argmax(1) == labels).double().mean())}


def _contrast_results(contrast: ContrastTraining, module: nn.Module, batches: Iterable[Batch]) -> Mapping[str, float]:
    return class_results(*contrast.scored(module, batches))


def _class_results(module: nn.Module, batches: Iterable[Batch]) -> Mapping[str, float]:
    return class_results(*scored(module, batches))

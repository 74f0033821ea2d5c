"""From the section ``train`` of a recipe to what the training loop takes."""

from collections.abc import Callable, Mapping
from typing import Any

from mixtura.coarse_sections import COARSE_KEYS, CONDITIONAL, FINDS_SUBCLASSES, SCGM_G, CoarseSection
from mixtura.encoders.stages import BIAS, NORM, WEIGHT, bare, freeze_norm, kinds_of
from mixtura.errors import UsageError
from mixtura.names import find
from mixtura.objectives import OBJECTIVES
from mixtura.recipe import dump_dict
from mixtura.sections import BOTH
from mixtura.training import distributed
from mixtura.training.augment import Augmentation, View
from mixtura.training.checkpoint import Fact
from mixtura.training.classifier import Classifier
from mixtura.training.embedding import EmbeddingClassifier
from mixtura.training.episodic import Embedder
from mixtura.training.hooks import Hook, WeightAverage
from mixtura.training.optimizers import is_weight, optimizer, parameter_groups
from mixtura.training.reconstructor import Reconstructor
from mixtura.training.schedule import Schedule, layer_factors
from mixtura.training.setup import Settings
from mixtura.training.subclasses import SubclassClassifier
from mixtura.training_sections import PROTOTYPICAL, RECONSTRUCTION, TrainSection

SMALL_BATCH = 64  # photos; the statistics of fewer are too noisy for a batch norm that is trained well already
LEARNING_RATE, SCRATCH_LEARNING_RATE = 5e-4, 1e-3
LAYER_DECAY, SCRATCH_LAYER_DECAY = 0.75, 1.0
HEAD_FACTOR = 4.0  # of the learning rate, for a head that starts from zero on a network that does not
AUTO, FROZEN, SYNCED = "auto", "frozen", "synced"
Trained = Classifier | Embedder | EmbeddingClassifier | Reconstructor | SubclassClassifier
"""A network with what serves to train it."""

NOT_COMPARED = frozenset({"minutes", "patience", "epochs", "start", "log"})
"""Keys that may change while a run goes on; its start is compared by the weights, its epochs by the learning rates."""


def check_train(section: TrainSection) -> None:
    """Check a section before any photo is read.

    Raises:
        UnknownName: there is no such view.
        UsageError: an option of the schedule, of a view, of the optimizer or of the objective does not fit.
    """
    _check_objective(section)
    augmentation_of(section, 0)
    schedule_of(section, 1, section.epochs)
    if section.momentum is not None and section.optimizer not in ("sgd", "nesterov"):
        raise UsageError(f"The optimizer {section.optimizer} has no momentum. Leave out train.momentum, or use sgd.")
    if section.momentum == 0 and section.optimizer == "nesterov":
        raise UsageError("The optimizer nesterov needs a train.momentum above 0. Give one, or use sgd.")
    if section.unfreeze and section.trainable in ("frozen", "head"):
        raise UsageError(
            f"train.unfreeze is {section.unfreeze}, and train.trainable {section.trainable!r} trains nothing after it. "
            "Leave out train.unfreeze, or train last, norm or all."
        )


def check_coarse(coarse: CoarseSection | None, section: TrainSection, level: str, drawn: bool) -> None:
    """Check, before any photo is read, that the section coarse has what the objective reads, and nothing else.

    Args:
        coarse: the section.
        section: the section train.
        level: at which the data is learned.
        drawn: whether the network begins with drawn weights, so that nothing tells how many kinds there are.

    Raises:
        UsageError: it is not.
    """
    finds = section.objective in FINDS_SUBCLASSES
    if coarse is not None:
        _check_keys(coarse, section)
    if section.keeps_kinds_apart and level == BOTH:
        raise UsageError(
            f"{section.objective} looks for kinds that have no labels, and --level both (data.level) has labels for "
            "them. Use --level superlabel, which keeps the labels to measure by."
        )
    if finds and drawn and (coarse is None or coarse.subclasses is None):
        raise UsageError(
            f"{section.objective} from scratch needs the number of subclasses. Set coarse.subclasses to about 1.5 "
            "times as many as there may be, in all classes."
        )


def _check_keys(coarse: CoarseSection, section: TrainSection) -> None:
    """Check that an objective reads what is given; a default counts as left out, as a stored recipe has all of them."""
    read = COARSE_KEYS.get(section.objective)
    if read is None:
        raise UsageError(
            f"The objective {section.objective!r} does not read the section coarse. Leave it out, or set "
            f"train.objective to one that does: {', '.join(COARSE_KEYS)}."
        )
    for key, field in type(coarse).model_fields.items():
        if key not in read and getattr(coarse, key) != field.default:
            others = [name for name, keys in COARSE_KEYS.items() if key in keys]
            raise UsageError(
                f"The objective {section.objective!r} does not read coarse.{key}. Leave it out, or set "
                f"train.objective to one that does: {', '.join(others)}."
            )
    if section.objective == CONDITIONAL and section.head == "joint":
        raise UsageError(
            "An embedder is trained below a linear layer, not below train.head: joint. Leave out the section coarse, "
            "or use refit."
        )


def check_norm(section: TrainSection, device: str) -> None:
    """Check that batch norm can be trained as it is asked for on a device.

    Raises:
        UsageError: it is to be synchronized, and the device is no GPU.
    """
    if section.norm == SYNCED and not device.startswith("cuda"):
        raise UsageError(
            f"train.norm is synced, and batch norm is synchronized on GPUs only, not on {device}. Leave it out: each "
            "process then uses its own photos, and the running statistics are averaged before every evaluation and "
            "commit. Or give frozen."
        )


def _check_objective(section: TrainSection) -> None:
    if section.objective != RECONSTRUCTION and section.pixels is not None:
        raise UsageError(
            f"train.pixels is {section.pixels!r}, and the objective {section.objective!r} compares no pixels. "
            f"Leave it out, or set train.objective={RECONSTRUCTION}."
        )
    if section.objective != PROTOTYPICAL and (section.episodes is not None or section.distance is not None):
        key = "train.distance" if section.episodes is None else "train.episodes"
        raise UsageError(
            f"The objective {section.objective!r} draws no episodes. Leave out {key}, or set "
            f"train.objective={PROTOTYPICAL}."
        )
    if section.momentum_encoder is not None and views_of(section) == 1:
        raise UsageError(
            f"The objective {section.objective!r} compares no views. Leave out train.momentum_encoder "
            f"{section.momentum_encoder:g}; train.ema averages the weights."
        )
    if section.objective == RECONSTRUCTION:
        _check_reconstruction(section)
    if section.objective == PROTOTYPICAL:
        _check_prototypical(section)
    if section.keeps_kinds_apart:
        _check_kinds(section)


def _check_kinds(section: TrainSection) -> None:
    if section.head == "joint":
        raise UsageError(
            f"{section.objective} trains embeddings in place of a head of classes. Leave out train.head: joint."
        )
    if section.unfreeze:
        raise UsageError(
            f"{section.objective} trains the network from the start. Leave out train.unfreeze {section.unfreeze}; for "
            f"{SCGM_G}, coarse.warmup has epochs of the class term alone."
        )
    if section.trainable in (FROZEN, "head"):
        raise UsageError(
            f"{section.objective} trains the network, and train.trainable {section.trainable!r} leaves nothing of it "
            "to train. Use last, norm or all."
        )
    if section.patience is not None:
        raise UsageError(
            f"The loss of the classes does not say when the kinds have come apart. Leave out train.patience "
            f"{section.patience}."
        )


def _check_reconstruction(section: TrainSection) -> None:
    if section.head == "joint":
        raise UsageError("Reconstruction trains a decoder and no head of classes. Leave out train.head: joint.")
    if section.unfreeze:
        raise UsageError(
            f"Reconstruction trains network and decoder together from the start. Leave out train.unfreeze "
            f"{section.unfreeze}."
        )
    if section.trainable not in (None, "all"):
        raise UsageError(
            f"Reconstruction trains the whole network, and train.trainable is {section.trainable!r}. Leave it out."
        )


def _check_prototypical(section: TrainSection) -> None:
    if section.head == "joint":
        raise UsageError("Prototypes take the place of a head in training. Leave out train.head: joint.")
    if section.unfreeze:
        raise UsageError(
            f"Prototypical training has no head to train first. Leave out train.unfreeze {section.unfreeze}."
        )
    if section.trainable in (FROZEN, "head"):
        raise UsageError(
            f"Episodes train the network, and train.trainable {section.trainable!r} leaves nothing of it to train. Use "
            "last, norm or all."
        )
    if section.accumulate > 1:
        raise UsageError(
            f"All queries of an episode need all its prototypes, so it cannot be split into parts. Leave out "
            f"train.accumulate {section.accumulate}, or lower train.episodes.way, shot or query."
        )
    if section.balance:
        raise UsageError(f"Episodes draw all classes alike. Leave out train.balance {section.balance:g}.")
    if distributed.processes() > 1:
        raise UsageError(
            f"An episode is not divided among {distributed.processes()} processes. Train on episodes in one process, "
            "without torchrun."
        )


def augmentation_of(section: TrainSection, seed: int) -> Augmentation | None:
    """The random views of training photos; ``None`` for none."""
    given = section.augment
    views = [
        View(one.name, given.probability if one.probability is None else one.probability, one.options)
        for one in given.views
    ]
    return Augmentation(tuple(views), seed, views_of(section)) if views else None


def views_of(section: TrainSection) -> int:
    """How many random views of each photo a batch has: as many as the class of the objective says, else one."""
    return getattr(find(OBJECTIVES, section.objective), "views", 1)


def schedule_of(section: TrainSection, steps: int, epochs: int) -> Schedule:
    """The learning rates of a run of so many epochs, of so many steps each."""
    given: dict[str, Any] = section.schedule.model_dump(exclude_none=True)
    return Schedule(**given, steps_per_epoch=steps, epochs=epochs)


def settings_of(section: TrainSection, epochs: int, seed: int, last: bool = False) -> Settings:
    """How a run of so many epochs is trained, and whether the last of them is kept."""
    clip, patience = section.clip or None, section.patience
    return Settings(epochs, section.accumulate, clip, section.precision, patience, last, incumbent=False, seed=seed)


def facts_of(section: TrainSection, part: str, epochs: int) -> dict[str, Fact]:
    """What must be equal when a run goes on, by key; the number of epochs only where the rates follow from it."""
    given = _leaves(dump_dict(section))
    same: dict[str, Fact] = {f"train.{key}": value for key, value in given if key.partition(".")[0] not in NOT_COMPARED}
    depends = schedule_of(section, 1, epochs).depends_on_epochs
    return same | {"train.trainable": part} | ({"epochs": epochs} if depends else {})


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Fact]]:
    found: list[tuple[str, Fact]] = []
    for key, value in values.items():
        plain = value if isinstance(value, str | int | float) else repr(value)
        found += _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, plain)]
    return found


def prepare(classifier: Trained, part: str, section: TrainSection, pretrained: bool) -> None:
    """Let only a part of a network be trained: ``head``, ``last``, ``norm`` or ``all``; its head always is.

    Batch norms of weights that come from elsewhere keep their statistics where batches are small, unless the section
    says how they are trained.
    """
    if section.norm == SYNCED:
        classifier.network = distributed.synced(classifier.network)
    network = classifier.network
    if part == "last":
        classifier.stages.freeze(network, len(classifier.stages) - 1)
    if part == "head":
        classifier.stages.freeze(network, len(classifier.stages))
    few = section.norm is None and pretrained and section.step_size < SMALL_BATCH
    if part == "norm" or section.norm == FROZEN or few:
        freeze_norm(network)
    if part == "norm":
        kinds = kinds_of(network)
        for name, parameter in bare(network).named_parameters():
            parameter.requires_grad_(kinds[name] in (NORM, BIAS))


def rate_of(section: TrainSection, pretrained: bool) -> float:
    """The learning rate of which the head and each block have a multiple; 1 for ``auto``, before its range test."""
    if section.learning_rate == AUTO:
        return 1.0
    return section.learning_rate or (LEARNING_RATE if pretrained else SCRATCH_LEARNING_RATE)


def optimizer_of(classifier: Trained, section: TrainSection, pretrained: bool) -> Any:
    """The optimizer of a classifier, with a learning rate for each block and no decay of norms and biases."""
    options = {} if section.momentum is None else {"momentum": section.momentum}
    groups = parameter_groups(
        classifier,
        rate_of(section, pretrained),
        section.weight_decay,
        _factors(
            classifier,
            section.layer_decay or (LAYER_DECAY if pretrained else SCRATCH_LAYER_DECAY),
            HEAD_FACTOR if pretrained and section.head == "refit" else 1.0,
        ),
        _decays(classifier),
    )
    return optimizer(section.optimizer, groups, **options)


def hooks_of(classifier: Trained, section: TrainSection) -> dict[str, Hook]:
    """The state that is kept beside the network."""
    return {} if section.ema is None else {"average": WeightAverage(classifier, section.ema)}


def _factors(classifier: Trained, decay: float, head: float) -> Callable[[str], float]:
    """The share of the learning rate that a parameter has, by its name in the classifier."""
    blocks = classifier.stages.blocks(classifier.network)
    factors = layer_factors(len(blocks) + 1, decay)
    own = {id(p): factor for (_, held), factor in zip(blocks, factors, strict=False) for p in held.values()}
    names = {name: own.get(id(parameter), head) for name, parameter in classifier.named_parameters()}
    return names.__getitem__


def _decays(classifier: Trained) -> Callable[[str, Any], bool]:
    """Whether a parameter decays, by its name in the classifier."""
    kinds = kinds_of(classifier.network)
    spared = {id(p) for name, p in bare(classifier.network).named_parameters() if kinds[name] != WEIGHT}
    return lambda name, parameter: is_weight(name, parameter) and id(parameter) not in spared

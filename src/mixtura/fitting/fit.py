"""The fitting pipeline: from labeled features to a calibrated model, for every solver."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura import names
from mixtura.core import FAMILIES, temperature
from mixtura.core.covariance import family_of
from mixtura.core.cross_fitting import Folds
from mixtura.core.scale import check_single
from mixtura.encoders import ENCODERS
from mixtura.encoders.common import split_name
from mixtura.errors import LabelError, UsageError, WrongKind
from mixtura.features.projected_folds import cross_fit_projection
from mixtura.features.records import Features
from mixtura.features.selection import Selected
from mixtura.fitting import checks, gradient, heads
from mixtura.fitting.fitted import Fitted, assemble
from mixtura.fitting.selection import TrainingSamples, choose, fit_without_gradients
from mixtura.fitting.strangers import leave_classes_out
from mixtura.identity import NO_TAPS, blocks_of
from mixtura.model.model import Model
from mixtura.model.prior_file import check_prior
from mixtura.pipeline import factory, levels, training_set
from mixtura.pipeline.training_photos import TrainingPhotos
from mixtura.recipe import Recipe
from mixtura.scores import AUTO, DENSITY, SCORES
from mixtura.scores.typicality import MIN_HELD_OUT
from mixtura.sections import BOTH


def check_names(recipe: Recipe) -> None:
    """Validate the names of a recipe; call it before reading any photo.

    Raises:
        UnknownName: a name is not registered; the message suggests the nearest one.
        UsageError: a missing device, or a head that does not support the solver.
        NoInput: the second domain of the data, or the file of the class prior, is missing.
        DataError: that file is no list of classes and shares.
    """
    if recipe.data.kind != factory.FEATURES_KIND:
        names.find(ENCODERS, split_name(recipe.encoder.name)[0])
        factory.check_place(recipe.data)
        if (second := factory.second_of(recipe.data)) is not None:
            factory.read_data(second)  # lists the photos, which fails before hours of extraction
    factory.steps_of(recipe.projection)
    factory.device_of(recipe.encoder.device)
    spec = heads.spec_of(recipe.head.name, recipe.fit.solver, recipe.head.n_components, recipe.head, 0)
    checks.check_fit(spec, recipe.fit, [recipe.fit.objective])
    if recipe.data.level == BOTH and gradient.needs_head_training(gradient.resolve_variant(recipe)):
        raise UsageError(
            "--level both (data.level) gives each subclass Gaussians of its own, fitted in closed form or by EM. Leave "
            "out --head, --solver gradient and the options of a head, or use --level superlabel."
        )
    check_prior(recipe.decision.prior)
    if recipe.decision.score not in (AUTO, DENSITY):
        score = names.find(SCORES | {AUTO: "", DENSITY: ""}, recipe.decision.score)
        if not callable(getattr(score, "fit", None)):
            raise WrongKind(f"{recipe.decision.score!r} is no score: it has no fit. See Score in mixtura.scores.")
    if recipe.head.family != "auto":
        names.find(FAMILIES | {"auto": ""}, recipe.head.family)
        family_of(recipe.head.family)


def learn(recipe: Recipe, gathered: training_set.Gathered) -> Model:
    """Model fitted to all samples outside the test split.

    Raises:
        LabelError: fewer than two classes, no test samples, or a class whose items all have weight 0.
    """
    features = gathered.features
    learned = features.select(np.array([split != "test" for split in features.split], dtype=bool))
    unknown = training_set.labels_of(learned.classes, recipe.data.unknown)
    classes = training_set.known_classes(learned.classes, tuple(unknown))
    tested = features.select_split("test")
    if not (tested.label_index(classes) >= 0).any():
        left_out = training_set.labels_of(tested.classes, recipe.data.unknown)
        strangers = sum(label not in left_out for label in tested.label)
        raise _nothing_to_test_with(recipe, len(learned), gathered.distinct, strangers)
    train = training_set.train_part(features, classes)
    rows = _rows(recipe, train, classes, gathered.encoder_trained)
    _check_weights(rows, rows.subclasses or classes)
    fitted = solve(recipe, rows, classes)
    return assemble(recipe, gathered, classes, rows.x, fitted)


def check_parts(recipe: Recipe, photos: TrainingPhotos) -> None:
    """Check, before a network is trained, that the fit that follows has photos to test and to validate with.

    Raises:
        LabelError: there are too few.
    """
    if not photos.test_count:
        raise _nothing_to_test_with(recipe, len(photos.labels), photos.distinct, photos.stranger_count)
    if short := too_few_to_validate(photos):
        raise LabelError(short)


def too_few_to_validate(photos: TrainingPhotos) -> str:
    """A sentence if the photos have too few for validation to fit a model to a trained network, else nothing."""
    held = len(photos.validation)
    if held >= MIN_HELD_OUT:
        return ""
    left = "Only one photo is" if held else "No photo is"
    return f"{left} left to validate a trained network with; it takes {MIN_HELD_OUT}. Add photos, or a folder val."


def learn_density(recipe: Recipe, gathered: training_set.Gathered) -> Model:
    """Model fitted in closed form, or by EM, to all labeled samples: what :func:`learn` selects and fits, untested.

    Raises:
        LabelError: fewer than two classes, or too few samples to hold out.
    """
    classes = training_set.known_classes(gathered.features.classes, ())
    rows = _rows(recipe, gathered.features, classes, gathered.encoder_trained)
    _check_weights(rows, rows.subclasses or classes)
    fitted = fit_without_gradients(choose(recipe, rows), rows, recipe.seed)
    return assemble(recipe, gathered, classes, rows.x, fitted)


def validation_losses(recipe: Recipe, gathered: training_set.Gathered, part: Mapping[str, str]) -> dict[str, float]:
    """Loss of each validation item in nats, by id, under a model of the training items alone; to compare encoders by.

    No validation item is learned from, as photos of one moment would vouch for each other. But they choose what the
    recipe leaves open, such as the shrinkage: an encoder that was trained knows the training items too well for that.
    Scores are taken at the temperature that suits the items best, so how sure a model is counts for nothing.

    Args:
        recipe: of the fit.
        gathered: the features.
        part: ``train`` or ``val``, by id; other items are left out.
    """
    features = gathered.features.select(np.array([id in part for id in gathered.features.id], dtype=bool))
    features = features.with_split(part)
    rows, recipe = _rows(recipe, features, features.classes, True), gradient.resolve_variant(recipe)
    if gradient.needs_head_training(recipe):
        learned = _rows(recipe, features.select_split("train"), features.classes, False)
        row, scores = _of_trained_head(recipe, learned, rows)
        label = rows.labels[row]
    else:
        choice, held = choose(gradient.density_recipe(recipe), rows), rows.is_validation
        apart = Folds(rows.x, rows.labels, rows.n_classes, (~held).long(), 1, rows.weight)
        found = cross_fit_projection(choice.steps, rows.x, apart)[1].cross_val_predict(choice.candidate.plan)
        found = choice.folds.judged(found)
        row, scores, label = found.row, found.class_log_prob, found.label
    log_posterior = (scores.double() / temperature.best(scores, label)).log_softmax(1)
    loss = -log_posterior.gather(1, label[:, None])[:, 0]
    return {features.id[place]: one for place, one in zip(row.tolist(), loss.tolist(), strict=True)}


def _of_trained_head(
    recipe: Recipe, learned: TrainingSamples, rows: TrainingSamples
) -> tuple[Int[Tensor, " M"], Float[Tensor, "M C"]]:
    """The validation rows, and their scores by a head that was trained on the others."""
    fitted, row = _solved(recipe, learned)[1], rows.is_validation.nonzero()[:, 0]
    with torch.inference_mode():
        x = fitted.projection(rows.x[row])
        return row, fitted.mixture.class_log_prob(x) if fitted.head is None else fitted.head.class_scores(x)


def _nothing_to_test_with(recipe: Recipe, count: int, distinct: int | None, strangers: int) -> LabelError:
    """The error for a split without test items of the classes, with its cause.

    That is a test part of other classes, the fractions, copies, or too few photos.
    """
    if strangers:
        return training_set.other_classes(strangers)
    train, val, test = recipe.split.fractions
    if test == 0:
        return LabelError(
            f"No photo is left to test with: split.fractions ({train:g}, {val:g}, {test:g}) leave none to the test "
            "part. Give it a share, as in [0.8, 0, 0.2], or give a test folder."
        )
    merged = "" if distinct is None or distinct == count else f" They are {distinct} and copies or groups of these."
    return LabelError(
        f"No photo is left to test with: all {count} are needed to learn from.{merged} "
        "Give each class three photos or more that are no copies of each other (where photos have groups, in three "
        "groups), or a test folder."
    )


def _check_weights(rows: TrainingSamples, classes: Sequence[str]) -> None:
    """Check that every class has an item with positive weight; otherwise it would never be predicted."""
    if rows.weight is None:
        return
    total = torch.bincount(rows.labels, rows.weight, minlength=len(classes))
    if not bool((total > 0).all()):
        name = classes[int(total.argmin())]
        raise LabelError(
            f"All items of class {name!r} that could be learned from have weight 0. Give one of them a weight, or "
            "leave the class out (data.unknown)."
        )


def solve(recipe: Recipe, rows: TrainingSamples, labels: Sequence[str] = ()) -> Fitted:
    """Fit with the solver of a recipe; the projection and the plan are selected first, for every solver.

    Args:
        recipe: what to fit.
        rows: the training samples.
        labels: names of their classes; their indices if left out.

    Raises:
        LabelError: too few samples can be held out.
        UsageError: an invalid head, solver or option.
    """
    recipe = gradient.resolve_variant(recipe)
    choice, fitted = _solved(recipe, rows)
    return leave_classes_out(recipe, rows, choice, fitted, labels or tuple(map(str, range(rows.n_classes))))


def _solved(recipe: Recipe, rows: TrainingSamples) -> tuple[Selected, Fitted]:
    """What is selected, and its fit."""
    choice = choose(gradient.density_recipe(recipe), rows)
    fitted = fit_without_gradients(choice, rows, recipe.seed)
    return choice, gradient.fit(recipe, rows, choice, fitted) if gradient.needs_head_training(recipe) else fitted


def _rows(recipe: Recipe, train: Features, classes: tuple[str, ...], encoder_trained: bool) -> TrainingSamples:
    """The samples to learn from; without taps, the last layer is the only block."""
    blocks, x = blocks_of(train.identity), torch.from_numpy(train.embedding)
    check_single(x)
    labels, below = train.label_index(classes), levels.subclasses_of(train, classes)
    return TrainingSamples(
        x,
        torch.from_numpy(labels if below is None else below.labels),
        torch.from_numpy(training_set.groups_of(train)),
        torch.tensor([split == "val" for split in train.split]),
        training_set.weight_of(train),
        len(classes) if below is None else len(below.names),
        blocks[:1] if recipe.encoder.taps == NO_TAPS else blocks,
        encoder_trained,
        None if below is None else torch.from_numpy(below.class_parent),
        () if below is None else below.names,
    )

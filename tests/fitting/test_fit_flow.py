"""One flow for every solver: the projection and the plan first, and no solver ends below its start."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from mixtura.core import temperature
from mixtura.core.selection import temperature_of
from mixtura.errors import LabelError, UsageError
from mixtura.features.projected_folds import without_fold
from mixtura.fitting import fit as fitting
from mixtura.fitting import gradient, heads
from mixtura.fitting.selection import TrainingSamples, choose
from mixtura.recipe import resolve

CHOSEN = {"family", "n_components", "prior_strength", "shrinkage", "feature_scale", "training_items"}


@pytest.fixture(scope="module")
def skewed(features):
    """scikit-learn's digits with cubed pixels: skewed and non-negative, as features behind a rectifier are."""
    x, y = load_digits(return_X_y=True)
    return features((x / 16) ** 3, y.astype(str))


@pytest.fixture(scope="module")
def default(learn, skewed):
    return learn(skewed)


def tensors(model):
    parts = {"mixture": model.mixture.state(), "typicality": model.typicality.state()}
    return {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}


def test_gradients_without_a_step_are_the_default_fit(learn, skewed, default):
    still = learn(skewed, fit__solver="gradient", fit__epochs=0)
    ours, theirs = tensors(still), tensors(default)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert still.temperature == default.temperature and still.head is None
    assert still.projection.config() == default.projection.config()
    assert [step.name for step in default.projection.steps] == ["power"]
    assert still.facts["epoch"] == 0 and still.facts["from_sums"]


@pytest.mark.parametrize("family", ["spherical", "diagonal", "lowrank", "tied", "full"])
def test_no_solver_ends_below_its_start_on_the_validation_rows(skewed, family):
    """Neither by loss, nor by accuracy by more than a row; the start that is compared is fitted without those rows."""
    base = {"data.root": "x", "head.family": family, "fit.solver": "gradient", "fit.learning_rate": 0.01}
    made = {n: _solved(skewed, resolve(base | {"fit.epochs": n})) for n in (0, 3)}
    rows = _rows(skewed)
    val = gradient.validation_mask(rows, resolve(base))
    choice = choose(resolve(base), rows)
    without = without_fold(choice.steps, rows.x, heads.holdout_split(rows.x, rows.labels, val, rows.n_classes), 0)
    start = without.mixture(choice.candidate.plan, 0).class_log_prob(without.x[val])
    labels = rows.labels[val]
    first = temperature.nll(start, labels, temperature.best(start, labels))
    held = made[3].out_of_fold
    if made[3].facts["epoch"]:
        assert torch.equal(held.row, val.nonzero()[:, 0])
        scores = held.class_log_prob
        assert temperature.nll(scores, labels, temperature.best(scores, labels)) <= first + 1e-3
        assert float(held.correct.sum()) >= float((start.argmax(1) == labels).sum()) - 1
    assert made[3].facts["held_out_nll"] <= made[3].facts["held_out_nll_at_the_start"]
    assert made[0].facts["epoch"] == 0


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"fit__solver": "closed", "head__family": "full"},
        {"fit__solver": "em", "head__family": "diagonal", "head__n_components": 2},
        {"fit__solver": "gradient", "fit__epochs": 2, "head__family": "diagonal"},
        {"head__name": "prototype"},
        {"head__name": "softmax", "fit__solver": "gradient", "fit__epochs": 2},
    ],
)
def test_every_solver_records_what_was_chosen(learn, skewed, how):
    facts = learn(skewed, **how).facts
    assert facts.keys() >= CHOSEN
    assert facts["training_items"] == sum(split != "test" for split in skewed.split)
    assert 0.8 < facts["held_out_accuracy"] <= 1 and facts["projection"] == "power"


def test_a_trained_head_has_learned_from_all_rows(learn, skewed):
    """A row that is for validation moves the model, too."""
    how = {"fit__solver": "gradient", "fit__epochs": 2, "fit__learning_rate": 0.02, "head__family": "diagonal"}
    model = learn(skewed, **how, projection=["power"], head__shrinkage=0.1, head__feature_scale="none")
    assert model.facts["epoch"] > 0
    rows = _rows(skewed)
    val = gradient.validation_mask(rows, resolve({"data.root": "x"})).nonzero()[:, 0].numpy()
    learned = np.flatnonzero([split != "test" for split in skewed.split])
    embedding = skewed.embedding.copy()
    embedding[learned[val[:5]]] = 1.0
    moved = learn(skewed.__class__(**{**vars(skewed), "embedding": embedding}), **how, projection=["power"])
    assert not torch.allclose(moved.mixture.mean, model.mixture.mean, atol=1e-4)


def _rows(features):
    classes = features.classes
    learned = features.select(np.array([split != "test" for split in features.split]))
    x, labels = torch.from_numpy(learned.embedding), torch.from_numpy(learned.label_index(classes))
    none = torch.zeros(len(x), dtype=torch.bool)
    return TrainingSamples(x, labels, torch.arange(len(x)), none, None, len(classes))


def _solved(features, recipe):
    return fitting.solve(recipe, _rows(features))


def test_the_temperature_does_not_depend_on_the_order_of_rows(skewed):
    rows = _rows(skewed)
    held = _solved(skewed, resolve({"data.root": "x", "head.family": "diagonal"})).out_of_fold
    order = torch.randperm(len(held.row), generator=torch.Generator().manual_seed(0))
    shuffled = held.select(order)
    assert temperature_of(rows.x, held) == pytest.approx(temperature_of(rows.x, shuffled), rel=1e-9)


@pytest.mark.parametrize("head", ["gaussian", "linear", "vmf"])
def test_an_item_of_weight_zero_teaches_no_trained_head(head, learn, skewed):
    """The same head as without those items, in batches of all rows, whose order is then of no matter."""
    learned = np.flatnonzero([split != "test" for split in skewed.split])
    gone = learned[::7]
    weight = np.ones(len(skewed.split))
    weight[gone] = 0.0
    how = {"fit__solver": "gradient", "fit__epochs": 6, "fit__batch_size": 10_000, "head__name": head}
    how |= {"projection": ["power"], "head__family": "auto" if head != "gaussian" else "diagonal"}
    how |= {"head__shrinkage": 0.1, "head__feature_scale": "none", "fit__learning_rate": 0.02}
    zero = learn(skewed.__class__(**{**vars(skewed), "weight": weight}), **how)
    without = learn(skewed.select(weight > 0), **how)
    assert zero.facts["epoch"] == without.facts["epoch"] > 0
    x = skewed.embedding[:200]
    assert np.allclose(zero.answers(x).posterior, without.answers(x).posterior, atol=1e-3)


def test_an_item_of_weight_zero_makes_no_stranger_typical(learn, cloud):
    known = cloud(240)
    rng = np.random.default_rng(0)
    far = cloud(30, seed=0, split=["train"] * 30)
    x = np.concatenate([known.embedding, 40 + 40 * rng.random((30, 6))])
    both = {name: [*getattr(known, name), *getattr(far, name)] for name in ("label", "split", "sha256")}
    ids = [f"i{i}" for i in range(270)]
    weight = np.concatenate([np.ones(240), np.zeros(30)])
    more = known.__class__(
        **{**vars(known), **both, "id": ids, "source": ids, "embedding": x.astype(np.float32), "weight": weight,
           "group": [None] * 270, "superlabel": [None] * 270}
    )  # fmt: skip
    how = {"projection": ["identity"], "head__family": "tied", "head__shrinkage": 0.1, "head__feature_scale": "none"}
    stranger = x[-10:].astype(np.float32)
    assert learn(known, **how).answers(stranger).typicality.max() < 0.05
    assert learn(more, **how).answers(stranger).typicality.max() < 0.05


def test_a_head_that_absorbs_refuses_weights(learn, cloud):
    weight = np.where(np.arange(300) % 2 == 0, 1.0, 2.0)
    with pytest.raises(UsageError, match="'online' heeds no weights of items at all"):
        learn(cloud(300, weight=weight), head__name="online", fit__solver="gradient", head__n_components=2)


def test_a_trained_mixture_keeps_the_units_it_was_shrunk_in(learn, skewed):
    how = {"fit__solver": "gradient", "fit__epochs": 4, "fit__learning_rate": 0.003, "head__family": "diagonal"}
    model = learn(skewed, **how, head__feature_scale="unit", head__shrinkage=0.1, projection=["power"])
    assert model.facts["epoch"] > 0 and model.facts["feature_scale"] == "unit"
    assert model.mixture.feature_scale is not None


def test_a_class_without_an_item_that_counts_is_named(learn, cloud):
    weight = np.where(np.arange(300) % 4 == 2, 0.0, 1.0)
    with pytest.raises(LabelError, match="All items of class 'c2'"):
        learn(cloud(300, weight=weight))


@pytest.mark.parametrize("how", [{}, {"head.name": "linear", "fit.epochs": 3}])
def test_validation_items_teach_the_model_that_judges_them_nothing(how, cloud, gathered):
    """Their losses do not fall with their number, beyond what the common temperature moves."""
    rows = cloud(n=642, classes=3, dimension=40, separation=0.25, split=["train"] * 42 + ["val"] * 600)
    recipe = resolve({"data.root": "x"} | how)
    few, many = (
        fitting.validation_losses(recipe, gathered(rows), dict(zip(rows.id[:end], rows.split[:end], strict=True)))
        for end in (342, 642)
    )
    assert list(many) == rows.id[42:] and 0.3 < np.mean(list(many.values())) < np.log(3)
    first, same = np.array(list(few.values())), np.array(list(many.values()))[:300]
    assert np.corrcoef(first, same)[0, 1] > 0.99 and first.mean() == pytest.approx(same.mean(), abs=0.02)

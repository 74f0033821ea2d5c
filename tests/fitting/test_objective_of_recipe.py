"""The section ``fit`` of a recipe becomes an objective: by the table, with the options that it takes."""

import math

import pytest
import torch

from mixtura.errors import UnknownName, UsageError
from mixtura.fitting import checks, heads
from mixtura.heads import HEADS
from mixtura.heads.base import GenerativeHead
from mixtura.interfaces import RecipeObjective
from mixtura.names import find
from mixtura.objectives import BY_INPUT, HEAD_OBJECTIVES, OBJECTIVES
from mixtura.objectives.classification import Conditional, Generative, Hybrid, LargeMargin
from mixtura.recipe import resolve

LABELS = torch.tensor([0] * 6 + [1] * 3 + [2])


class Pixels:
    reads = "pixels"


def objective(head="gaussian", **fit):
    recipe = resolve({f"fit.{key}": value for key, value in ({"solver": "gradient"} | fit).items()})
    spec = heads.spec_of(head, recipe.fit.solver, 1, recipe.head, 0)
    checks.check_fit(spec, recipe.fit, [recipe.fit.objective])
    return heads.objective_of(spec, recipe.fit, LABELS, 3)


def test_the_table_says_what_each_class_reads():
    for reads, table in BY_INPUT.items():
        for name in table:
            kind = find(table, name)
            assert kind.reads == reads, name
            assert isinstance(kind.from_options(), RecipeObjective)
    assert set(OBJECTIVES) == {name for table in BY_INPUT.values() for name in table}


def test_every_option_reaches_its_objective():
    assert objective() == Conditional()
    assert objective(label_smoothing=0.1) == Conditional(0.1)
    assert objective(objective="generative") == Generative()
    assert objective(objective="hybrid") == Hybrid(0.1)
    assert objective(objective="hybrid", generative_weight=0.5, label_smoothing=0.2) == Hybrid(0.5, Conditional(0.2))
    assert objective(objective="large_margin") == LargeMargin(0.1, 0.01)
    assert objective(objective="large_margin", margin=0.3, generative_weight=0.2) == LargeMargin(0.3, 0.2)
    assert objective(class_weight=[1, 2, 3]) == Conditional(class_weight=(1.0, 2.0, 3.0))


def test_balanced_weights_are_those_of_scikit_learn_and_priors_are_the_shares():
    from sklearn.utils.class_weight import compute_class_weight

    made = objective(class_weight="balanced", logit_adjustment=1.0)
    expected = compute_class_weight("balanced", classes=torch.arange(3).numpy(), y=LABELS.numpy())
    assert made.class_weight == pytest.approx(tuple(expected))
    assert made.log_prior == pytest.approx([math.log(share) for share in (0.6, 0.3, 0.1)])
    assert made.logit_adjustment == 1.0


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("wanted", HEAD_OBJECTIVES)
def test_who_needs_a_density_is_refused_without_one(name, wanted):
    if not find(HEAD_OBJECTIVES, wanted).needs_density or issubclass(find(HEADS, name), GenerativeHead):
        assert objective(name, objective=wanted)
    else:
        with pytest.raises(UsageError, match=f"{name!r} has no density, which the objective {wanted!r} lowers"):
            objective(name, objective=wanted)


@pytest.mark.parametrize(
    ("fit", "said"),
    [
        ({"solver": "em", "objective": "hybrid"}, "Only the solver 'gradient' lowers the objective 'hybrid'"),
        ({"objective": "generative", "class_weight": "balanced"}, r"'generative' takes no fit\.class_weight"),
        ({"margin": 0.2}, r"'conditional' takes no fit\.margin"),
        ({"final_learning_rate": 0.1}, r"fit\.final_learning_rate 0\.1 is above fit\.learning_rate 0\.003"),
        ({"class_weight": [1, 2]}, "2 numbers for 3 classes"),
        ({"class_weight": [0, 0, 0]}, "not all zero"),
        ({"objective": f"{__name__}:Pixels"}, "reads pixels, so no head can be trained by it. Use one of: conditional"),
        ({"objective": "math:pi"}, "does not say what it reads"),
    ],
)
def test_what_would_make_no_difference_or_does_not_fit_is_refused(fit, said):
    with pytest.raises(UsageError, match=said):
        objective(**fit)


def test_an_unknown_objective_names_those_of_heads():
    with pytest.raises(UnknownName, match="Did you mean 'hybrid'"):
        objective(objective="hybird")
    with pytest.raises(UsageError, match="'vmf' takes no l2"):
        objective("vmf", l2=1.0)


def test_balanced_weights_find_the_rare_class():
    """Nine rows of one class to one of the other, overlapping: weights move the border, and each draw has its own."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(1000) % 10 == 9).long()
    x = torch.randn(1000, 2, generator=generator) + 1.5 * labels[:, None]
    folds = heads.holdout_split(x, labels, torch.arange(1000) % 4 == 0, 2)
    other = heads.holdout_split(x, labels, torch.arange(1000) < 300, 2)
    recall = {}
    for weight in ("none", "balanced"):
        recipe = resolve({"fit.solver": "gradient", "fit.class_weight": weight, "fit.epochs": 40})
        spec = heads.spec_of("linear", "gradient", 1, recipe.head, 0)
        made = heads.fit_all([spec, spec], [folds, other], recipe.fit)
        assert len(made) == 2
        recall[weight] = float((made[0].head(x[labels == 1]).argmax(1) == 1).double().mean())
        last = heads.fit_all([spec], [other], recipe.fit)[0]
        assert torch.allclose(last.head(x), made[1].head(x), atol=1e-5)
    assert recall["balanced"] >= recall["none"]

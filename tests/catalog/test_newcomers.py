"""A newcomer is compared with its own shots: it does not take its whole kind, and keeps its own items."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from mixtura.catalog import Catalog, Shot, statistics
from mixtura.catalog.newcomers import NewcomerCalibration
from mixtura.catalog.players import MIN_FURTHER_ITEMS, Players
from mixtura.catalog.rebuild import CatalogState, ComponentGroup, model_of
from mixtura.core.classes import FLOOR_SHARE
from mixtura.core.covariance import FAMILIES
from mixtura.core.moments import LabeledItems
from mixtura.core.span import MAX_SPAN_SHARE
from mixtura.errors import UsageError
from mixtura.features import imports
from mixtura.model.bundle import save_pretrained
from mixtura.onnx import graph, runner
from mixtura.recipe import resolve
from mixtura.scores.resemblance import OwnItems
from mixtura.tasks import fit

DIMENSION, FLOWERS, PER_FLOWER = 100, 20, 19  # fewer rows than the covariance has numbers, as with features of photos


def world(kinds, per_class, seed, offset=0.0):
    """Classes of one kind: means about an offset, items whose spread differs from photo to photo, as in features."""
    rng = np.random.default_rng(seed)
    direction = np.sign(np.sin(3.7 * np.arange(DIMENSION)))
    mean = offset * direction + 1.25 * rng.standard_normal((kinds, DIMENSION))
    label = np.repeat(np.arange(kinds), per_class)
    scale = np.exp(0.3 * rng.standard_normal((len(label), 1)))
    return (mean[label] + scale * rng.standard_normal((len(label), DIMENSION))).astype(np.float32), label


@pytest.fixture(scope="module")
def flowers(features, learn):
    """A catalog of flowers by family and number of classes: the model with its sums, and its items."""
    kept = {}

    def make(family="tied", classes=FLOWERS, per_class=PER_FLOWER, **options):
        key = family, classes, per_class, *map(str, options.items())
        if key not in kept:
            x, label = world(classes, per_class, seed=1)
            given = features(x, [f"c{c:02d}" for c in label])
            model = learn(given, head__family=family, **options)
            train = given.select(np.array([split != "test" for split in given.split]))
            labels = torch.from_numpy(train.label_index(model.classes))
            items = LabeledItems(model.project(train.embedding), labels, torch.ones(len(labels), dtype=torch.float64))
            sums, floor = statistics.sums_of(model.mixture, items), statistics.floor_of(model, items, FLOOR_SHARE)
            kept[key] = statistics.base_of(model, sums, floor), items
        return kept[key]

    return make


def enrolled(base, items, shots, gone=()):
    """The model after some newcomers were enrolled: sets of shots by product name; ``gone`` are classes removed."""
    names = [name for c, name in enumerate(base.model.classes) if c not in gone]
    parts = [ComponentGroup(names.index(name), c) for c, name in enumerate(base.model.classes) if c not in gone]
    for name, rows in shots:
        names += [name] * (name not in names)
        parts.append(ComponentGroup(names.index(name), None, base.model.project(rows).double()))
    out = torch.isin(items.labels, torch.tensor(list(gone), dtype=torch.int64))
    left, removed, none = (items.select(rows) for rows in (~out, out, out & ~out))
    judge = torch.arange(len(left.labels)) % 5 == 0
    state = CatalogState(tuple(names), tuple(parts), none, removed)
    return model_of(base, state, lambda sums: NewcomerCalibration(base, sums, left, judge), None)


def untested(model):
    return replace(model, newcomers=None)


def matched(model, x, name):
    """Share of rows that the model takes for this product."""
    answers = model.answers(x)
    named = np.array(model.classes)[answers.predicted] == name
    return float((named & (answers.verdict != "unknown")).mean())


@pytest.mark.parametrize("k", [1, 3, 8])
def test_others_of_a_newcomers_kind_are_not_taken(flowers, k):
    """Birds in a catalog of flowers: without the test, most other birds match the one that was enrolled."""
    base, items = flowers()
    birds, label = world(12, 60, seed=5, offset=1.5)
    found = []
    for bird in range(3):
        own, others = birds[label == bird], birds[label != bird]
        model = enrolled(base, items, [("bird", own[:k])])
        pair = untested(model), model
        found.append([matched(judge, rows, "bird") for rows in (own[k:], others) for judge in pair])
    own_before, own_now, others_before, others_now = np.mean(found, 0)
    assert others_before > 0.5 and others_now < others_before / 2.5
    assert own_now > own_before - 0.05 > 0.9


def players_of(base, items):
    return Players(base, base.sums, items)


@pytest.mark.parametrize("k", [1, 4])
def test_a_newcomers_own_items_are_rejected_at_the_stated_rate(flowers, k):
    """Further flowers, one after the other: of their items, 5% and 20% have p-values below 5% and 20%."""
    base, items = flowers()
    players, count = players_of(base, items), 150
    more, label = world(FLOWERS + count, 12, seed=1)
    found = []
    for flower in range(FLOWERS, FLOWERS + count):
        x = base.model.project(more[label == flower])
        test = players.test([(FLOWERS, x[:k].double())])
        found.append(test(x[k:], torch.full((12 - k,), FLOWERS)))
    p = torch.cat(found).numpy()
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.025)
    assert (p < 0.2).mean() == pytest.approx(0.2, abs=0.06)


def test_the_only_shot_itself_is_never_unknown_by_the_test(flowers):
    base, items = flowers()
    birds, _ = world(1, 20, seed=5, offset=1.5)
    for row in birds:
        model = enrolled(base, items, [("bird", row[None])])
        p = model.newcomers(model.project(row[None]), torch.tensor([FLOWERS]))
        assert p.tolist() == [1.0]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_rows_of_fitted_classes_are_decided_as_before(flowers, family):
    base, items = flowers(family)
    birds, _ = world(3, 30, seed=5, offset=1.0)
    model = enrolled(base, items, [("bird", birds[:2]), ("owl", birds[30:34])])
    assert model.newcomers is not None
    rows = np.concatenate([world(FLOWERS, 20, seed=1)[0], birds, world(4, 30, seed=8)[0]])
    now, before = model.answers(rows), untested(model).answers(rows)
    fitted = before.predicted < FLOWERS
    assert 0.3 < fitted.mean() < 1
    for name in ("posterior", "predicted", "probability", "score", "subclass"):
        np.testing.assert_array_equal(getattr(now, name), getattr(before, name))
    for name in ("typicality", "verdict", "reason"):
        np.testing.assert_array_equal(getattr(now, name)[fitted], getattr(before, name)[fitted])
    assert (now.typicality <= before.typicality).all()
    turned = (now.verdict == "unknown") & (before.verdict != "unknown")
    assert set(now.reason[turned]) <= {"unusual_for_class", "between_classes"}
    assert turned.any() or family != "tied"


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_both_values_are_those_of_the_formula(flowers, family):
    """Against distances from the inverse of each covariance; mixture components stand in for nothing else."""
    base, items = flowers(family)
    shots = [items.x[3:4].double() + 1, items.x[20:23].double() - 1]
    sets = players_of(base, items).test([(FLOWERS, shots[0]), (FLOWERS + 1, shots[1])]).sets
    x = items.x[::40].float()
    near, alike = sets.resemblance(sets.mixture.component_log_prob(x))
    center = base.mixture.mean.mean(0)
    dense = sets.mixture.covariance.to(torch.float64).dense(4, DIMENSION)
    for place, rows in enumerate(shots):
        inverse, mean, k = torch.linalg.inv(dense[place]), rows.mean(0), len(rows)
        a, b, c = x.double() - mean, x.double() - center, mean - center
        squares = ((a @ inverse) * a).sum(1), ((b @ inverse) * b).sum(1), c @ inverse @ c
        torch.testing.assert_close(
            near[:, place], 0.5 * squares[1].log() - (squares[0] / (1 + 1 / k)).log(), rtol=1e-3, atol=1e-3
        )
        torch.testing.assert_close(
            alike[:, place], (b @ inverse @ c) / (squares[1] * squares[2]).sqrt(), rtol=1e-3, atol=1e-3
        )


def test_the_p_value_is_the_rank_of_the_lesser_rank():
    """Against loops over the reference items, and bounded below by the number of them."""
    rng = np.random.default_rng(0)
    near, alike = rng.integers(0, 9, 30) / 8, rng.integers(0, 9, 30) / 8  # with ties
    own = OwnItems.of(torch.from_numpy(near), torch.from_numpy(alike))
    lesser = [min((near <= n).sum() / 30, 4 * (alike <= a).sum() / 30) for n, a in zip(near, alike, strict=True)]
    for n, a in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0), (0.25, 0.75), (-np.inf, -np.inf), (2.0, 2.0)):
        u = min((1 + (near <= n).sum()) / 31, 4 * (1 + (alike <= a).sum()) / 31)
        wanted = (1 + sum(value <= u for value in lesser)) / 31
        assert float(own(torch.tensor([n]), torch.tensor([a]))) == wanted
    assert float(own(torch.tensor([-torch.inf]), torch.tensor([-torch.inf]))) == 1 / 31


def test_without_enough_to_play_with_there_is_no_test(flowers):
    """Four classes, or classes of so few items that none is left beyond a shot; the catalog works as before."""
    birds, _ = world(1, 30, seed=5, offset=1.5)
    for base, items in (flowers(classes=4), flowers(per_class=MIN_FURTHER_ITEMS)):
        model = enrolled(base, items, [("bird", birds[:3])])
        assert model.newcomers is None
        assert (model.answers(birds[3:]).predicted == len(base.model.classes)).any()


def test_with_as_many_items_as_the_others_it_is_no_newcomer(flowers):
    base, items = flowers()
    usual = int(torch.bincount(items.labels).double().quantile(0.5))
    birds, _ = world(2, 60, seed=5, offset=1.5)
    model = enrolled(base, items, [("bird", birds[: usual - 1]), ("owl", birds[60 : 60 + usual])])
    assert model.newcomers.product.tolist() == [FLOWERS]
    assert model.newcomers.sets.count.tolist() == [usual - 1]


def test_of_several_sets_of_shots_the_best_counts(flowers):
    """Two merged newcomers keep their shots apart; other newcomers change nothing."""
    base, items = flowers()
    birds, label = world(3, 30, seed=5, offset=1.5)
    x = base.model.project(birds)
    wanted = [
        enrolled(base, items, [("bird", birds[label == bird][:2])]).newcomers(x, torch.full((90,), FLOWERS))
        for bird in (0, 1)
    ]
    sets = [("bird", birds[label == 0][:2]), ("owl", birds[label == 2][:5]), ("bird", birds[label == 1][:2])]
    model = enrolled(base, items, sets)
    torch.testing.assert_close(model.newcomers(x, torch.full((90,), FLOWERS)), torch.maximum(*wanted), rtol=0, atol=0)


def test_players_are_drawn_among_those_who_can_spare_the_shots(flowers):
    """Of 60 classes five have 20 items and 55 have five: three shots of a bird take the five."""
    base, items = flowers(classes=60, per_class=24)
    few = torch.cat([torch.ones(5), torch.zeros(55)]).bool()[items.labels]
    place = torch.arange(len(items.x)) - torch.searchsorted(items.labels, items.labels)
    spare = items.select(few | (place < 5))
    players = Players(base, statistics.sums_of(base.model.mixture, spare), spare)
    birds, _ = world(1, 3, seed=5, offset=1.5)
    test = players.test([(60, torch.from_numpy(birds).double())])
    assert test is not None
    assert len(test.own[0].near) >= 5 * 5 * MIN_FURTHER_ITEMS


@pytest.mark.parametrize("scale", ["none", "half"])
def test_few_items_play_in_the_space_that_they_span(flowers, scale, monkeypatch):
    """The reference values are those of a play in all features, also with a class removed."""
    base, items = flowers(classes=6, per_class=14, head__feature_scale=scale)
    left = items.select(items.labels != 4)
    assert len(left.x) < MAX_SPAN_SHARE * DIMENSION
    sums, birds = statistics.sums_of(base.model.mixture, left), torch.from_numpy(world(1, 2, seed=5)[0]).double()

    def played():
        return Players(base, sums, left).test([(6, birds)]).own[0]

    few = played()
    monkeypatch.setattr("mixtura.core.span.MAX_SPAN_SHARE", 0.0)
    every = played()
    for name in ("near", "alike"):
        torch.testing.assert_close(getattr(few, name), getattr(every, name), rtol=1e-3, atol=1e-3)  # float32 density


def test_a_removed_class_plays_no_part(flowers):
    """Without some classes, the test is the one of a catalog that never had them."""
    base, items = flowers()
    birds, _ = world(1, 40, seed=5, offset=1.5)
    model = enrolled(base, items, [("bird", birds[:2])], gone={3, 7})
    kept = ~torch.isin(items.labels, torch.tensor([3, 7]))
    left = items.select(kept)
    players = Players(base, statistics.sums_of(base.model.mixture, left), left)
    wanted = players.test([(FLOWERS - 2, base.model.project(birds[:2]).double())])
    x, asked = base.model.project(birds[2:]), torch.full((38,), FLOWERS - 2)
    torch.testing.assert_close(model.newcomers(x, asked), wanted(x, asked), rtol=0, atol=0.011)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_exported_graph_gives_the_same_answers(flowers, family):
    """Newcomers of one and of two sets of shots, of different numbers of shots, and rows of every kind."""
    base, items = flowers(family)
    birds, _ = world(8, 30, seed=5, offset=1.5)
    sets = [("bird", birds[:1]), ("owl", birds[30:36]), ("bird", birds[60:62])]
    model = enrolled(base, items, sets)
    rows = np.concatenate([birds, world(FLOWERS, 3, seed=1)[0], np.full((1, DIMENSION), 1e30, np.float32)])
    if family == "tied":  # the export itself takes seconds
        session = onnxruntime.InferenceSession(graph.head_bytes(model), providers=["CPUExecutionProvider"])
        values = session.run(list(graph.OUTPUT_NAMES), {"features": rows})
    else:
        with torch.inference_mode():
            values = [value.numpy() for value in graph.HeadGraph(model)(torch.from_numpy(rows))]
    found = dict(zip(graph.OUTPUT_NAMES, values, strict=True))
    answers = model.answers(rows)
    assert (answers.predicted >= FLOWERS).sum() > 5
    tested = answers.typicality < untested(model).answers(rows).typicality
    assert tested.any() or family != "tied"
    step = 1 / (1 + min(len(own.near) for own in model.newcomers.own))
    np.testing.assert_allclose(found["typicality"], answers.typicality, rtol=0, atol=3 * step)
    assert (np.abs(found["typicality"] - answers.typicality) < 1e-9).mean() > 0.95  # a value on the edge of a rank


def test_the_runner_gives_the_reason_of_the_model(flowers, tmp_path):
    base, items = flowers()
    birds, _ = world(3, 30, seed=5, offset=1.5)
    model = enrolled(base, items, [("bird", birds[:2])])
    answers = model.answers(birds)
    with torch.inference_mode():
        outputs = dict(zip(graph.OUTPUT_NAMES, graph.HeadGraph(model)(torch.from_numpy(birds)), strict=True))
    config = {"false_reject_rate": 0.05, "min_probability": model.decision.min_probability}
    own = runner.Runner.__new__(runner.Runner)
    own.config, own.classes = config, list(model.classes)
    columns = own._judged({name: value.numpy() for name, value in outputs.items()})
    said = [own._answer("", {name: value[row] for name, value in columns.items()}) for row in range(len(birds))]
    assert [one["verdict"] for one in said] == answers.verdict.tolist()
    assert [one["reason"] or "" for one in said] == answers.reason.tolist()
    assert "unusual_for_class" in answers.reason


@pytest.fixture(scope="module")
def shop(features, tmp_path_factory):
    """A folder with a model of eight flowers and its catalog."""
    folder = tmp_path_factory.mktemp("newcomers")
    x, label = world(8, 30, seed=1)
    imports.save(features(x, [f"c{c}" for c in label]), folder / "store")
    fit.run(resolve({"data.kind": "features", "data.root": folder / "store", "output": folder / "shop"}))
    return folder / "shop"


def test_the_test_follows_every_edit(shop):
    """It is made of the items alone: another process has the same, undo takes it back, a merge ends it."""
    birds, _ = world(2, 30, seed=5, offset=1.5)
    catalog = Catalog.open(shop)
    shots = [[Shot(row, "", "") for row in birds[start : start + 3]] for start in (0, 30)]
    catalog.enroll("bird", shots[0])
    catalog.enroll("owl", shots[1])
    was = catalog.model.answers(birds)
    other = Catalog.open(shop)
    assert other.model.newcomers.product.tolist() == [8, 9]
    np.testing.assert_array_equal(other.model.answers(birds).typicality, was.typicality)
    catalog.merge("owl", "bird")
    assert catalog.model.newcomers.product.tolist() == [8, 8]
    catalog.merge("bird", "c1")
    assert catalog.model.newcomers is None  # it belongs to a fitted class now
    catalog.undo()
    catalog.undo()
    np.testing.assert_array_equal(catalog.model.answers(birds).typicality, was.typicality)
    catalog.undo()
    catalog.undo()
    assert catalog.model.newcomers is None
    catalog.close()
    other.close()


def test_the_model_of_an_edited_catalog_is_not_saved_without_its_test(shop, tmp_path):
    """A bundle holds no shots, so saved alone the model would take a newcomer's whole kind again."""
    catalog = Catalog.open(shop)
    catalog.enroll("bird", [Shot(row, "", "") for row in world(1, 3, seed=5, offset=1.5)[0]])
    with pytest.raises(UsageError, match="mixtura export"):
        save_pretrained(catalog.model, tmp_path / "alone")
    catalog.undo()
    catalog.close()
    assert not (tmp_path / "alone").exists()

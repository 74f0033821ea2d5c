"""Classes that own named subclasses: classes are told as without them, and each subclass has numbers of its own."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

import mixtura
from mixtura.catalog import Catalog, Shot
from mixtura.cli.app import run as command
from mixtura.core import classes
from mixtura.core.covariance import Prior
from mixtura.errors import BundleError, LabelError, NoInput, UsageError
from mixtura.features import imports
from mixtura.fitting import fit as fitting
from mixtura.fitting.subclasses import regrouped
from mixtura.model import bundle
from mixtura.model.decide import decide
from mixtura.model.subclass_map import subclass_map
from mixtura.model.subclasses import MIN_ITEMS
from mixtura.onnx import runner
from mixtura.onnx.graph import head_bytes, output_names
from mixtura.pipeline import training_set
from mixtura.pipeline.levels import features_at, subclasses_of
from mixtura.recipe import resolve
from mixtura.sections import DecisionSection
from mixtura.sweeps import grid
from mixtura.tasks import export, fit, recalibrate
from mixtura.web import schemas

KINDS = (("apple", "red"), ("apple", "green"), ("pear", "pear"), ("plum", "red"), ("plum", "blue"), ("plum", "black"))
FIXED = {"head__family": "tied", "head__shrinkage": 0.1, "head__feature_scale": "none", "projection": ["identity"]}
KEYS = {key.replace("__", "."): value for key, value in FIXED.items()}
ROWS = np.random.default_rng(9).standard_normal((60, 5)).astype(np.float32) * 4


@pytest.fixture(scope="module")
def kinds(features):
    """Rows of six kinds of three classes; the last kind of plums has a few rows only. One label is in two classes."""

    def make(each=60, few=8, separation=3.0, level="both", seed=0):
        rng = np.random.default_rng(seed)
        kind = np.repeat(np.arange(6), [each] * 5 + [few])
        x = separation * rng.standard_normal((6, 5))[kind] + rng.standard_normal((len(kind), 5))
        order = rng.permutation(len(kind))
        above, below = zip(*(KINDS[k] for k in kind[order]), strict=True)
        return features_at(features(x[order], below, superlabel=list(above)), level, "kinds")

    return make


@pytest.fixture(scope="module")
def model(kinds, learn):
    return learn(kinds(), **FIXED)


@pytest.fixture(scope="module")
def shop(kinds, tmp_path_factory):
    """A folder with a model of both levels, fitted to a feature store."""
    folder = tmp_path_factory.mktemp("kinds")
    rows = kinds(level="label")
    imports.save(replace(rows, identity={**rows.identity, "name": "imported:tiny"}), folder / "store")
    keys = {"data.kind": "features", "data.root": folder / "store", "output": folder / "shop", "data.level": "both"}
    return fit.run(resolve(keys | KEYS)).bundle_path


def test_regrouping_components_leaves_the_posterior():
    """Of any mixture, and any owners: classes get the sums of what their components have."""
    torch.manual_seed(0)
    owner = torch.tensor([0, 0, 1, 2, 2, 2])
    labels = torch.arange(6).repeat(20)
    x = torch.randn(120, 4) + labels[:, None]
    for family in ("tied", "diagonal"):
        finer = classes.fit(classes.Plan(family), x, labels, 6)
        ours = regrouped(finer, owner).posterior(x)
        brute = torch.stack([finer.posterior(x)[:, owner == c].sum(1) for c in range(3)], 1)
        assert float((ours - brute).abs().max()) < 1e-6
        assert torch.equal(regrouped(finer, owner).log_prob(x), finer.log_prob(x))


def test_each_subclass_is_estimated_from_its_own_rows(kinds, learn, model):
    """The components are those of a fit to the pairs of labels; class posteriors are their sums."""
    rows = kinds(level="both")
    pairs = replace(rows, label=[f"{a}/{b}" for a, b in zip(rows.label, rows.sublabel, strict=True)], sublabel=None)
    finer = learn(pairs, **FIXED)
    found = [f"{model.classes[c]}/{n}" for n, c in zip(*named(model), strict=True)]
    assert found == list(finer.classes)
    for name, tensor in finer.mixture.state().items():
        assert name == "component_class" or torch.equal(tensor, model.mixture.state()[name])
    ours = replace(model, temperature=1.0).answers(ROWS).posterior
    theirs = replace(finer, temperature=1.0).answers(ROWS).posterior
    owner = model.subclasses.class_parent.numpy()
    assert np.abs(ours - np.stack([theirs[:, owner == c].sum(1) for c in range(3)], 1)).max() < 1e-6


def test_without_subclasses_both_levels_are_one(kinds, learn):
    """Every class is its own only subclass, of probability 1, and nothing else differs by a bit."""
    rows = kinds(level="superlabel")
    one, two = (learn(part, **FIXED) for part in (rows, replace(rows, sublabel=list(map(str, rows.label)))))
    ours, theirs = one.answers(ROWS), two.answers(ROWS)
    for name in ("posterior", "typicality", "score", "verdict"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name))
    assert all(torch.equal(tensor, two.mixture.state()[name]) for name, tensor in one.mixture.state().items())
    assert one.temperature == two.temperature and two.subclasses.names == two.classes
    assert (theirs.subclass_probability == 1).all() and (theirs.subclass == theirs.predicted).all()


def test_a_subclass_has_a_probability_given_its_class(model):
    answers, x = model.answers(ROWS), model.project(ROWS)
    density = model.mixture.component_log_prob(x).double().numpy() / model.subclasses.temperature
    parent = model.subclasses.class_parent.numpy()
    for row, (own, best) in enumerate(zip(answers.predicted, answers.subclass, strict=True)):
        share = np.where(parent == own, np.exp(density[row] - density[row][parent == own].max()), 0)
        assert parent[best] == own
        np.testing.assert_allclose(answers.subclass_probability[row], share[best] / share.sum(), atol=1e-6)
        assert best == share.argmax()


def test_a_subclass_is_named_from_a_probability_on(model):
    """A row between two kinds is named where little is asked for, and not where certainty is."""
    between = (0.5 * (model.mixture.mean[0] + model.mixture.mean[1]))[None].numpy()
    wanted = [replace(model, decision=DecisionSection(min_subclass_probability=least)) for least in (0.0, 1.0)]
    named, unnamed = (decide(one, ["a"], between)[0] for one in wanted)
    assert named.label == unnamed.label == "apple"
    assert named.subclass in ("green", "red") and unnamed.subclass is None
    assert named.subclass_probability == unnamed.subclass_probability < 1


def test_typicality_is_within_the_subclass_unless_it_is_small(kinds, learn, model):
    answers = model.answers(kinds(seed=0).embedding)
    count = torch.bincount(model.typicality.subclass, minlength=6)
    own = (count >= MIN_ITEMS).numpy()[answers.subclass]
    assert 0 < own.sum() < len(own)
    assert np.array_equal(own, answers.subclass_own)
    assert np.array_equal(answers.subclass_typicality[~own], answers.typicality[~own])
    ranks = replace(model.typicality, predicted=model.typicality.subclass)
    score, kind = torch.from_numpy(answers.score), torch.from_numpy(answers.subclass)
    assert np.array_equal(answers.subclass_typicality[own], ranks(score, kind).numpy()[own])


def test_genuine_rows_of_a_subclass_are_rejected_at_the_stated_rate(kinds, learn):
    """Of new rows of every kind, 5% have a typicality below 5%; within four standard errors, over both samples."""
    rows = kinds(each=1000, few=1000, separation=6.0)
    test = np.array([split == "test" for split in rows.split])
    answers = learn(rows, **FIXED).answers(rows.embedding[test])
    for kind in range(6):
        found = answers.subclass_typicality[answers.subclass == kind]
        error = (0.05 * 0.95 * (1 / len(found) + 1 / 800)) ** 0.5
        assert answers.subclass_own.all() and abs((found < 0.05).mean() - 0.05) < 4 * error


def test_a_label_in_two_classes_is_two_subclasses(model):
    assert model.subclasses.names == ("green", "red", "pear", "black", "blue", "red")
    assert model.subclasses.class_parent.tolist() == [0, 0, 1, 2, 2, 2]


def test_a_bundle_keeps_the_subclasses(model, learn, kinds, tmp_path):
    bundle.save_pretrained(model, tmp_path / "m")
    again = bundle.from_pretrained(tmp_path / "m")
    ours, theirs = model.answers(ROWS), again.answers(ROWS)
    assert all(np.array_equal(value, getattr(theirs, name)) for name, value in vars(ours).items())
    assert again.subclasses.names == model.subclasses.names
    owner = replace(model.subclasses, class_parent=torch.tensor([0, 0, 1, 1, 2, 2]))
    bundle.save_pretrained(replace(model, subclasses=owner), tmp_path / "wrong")
    with pytest.raises(BundleError, match="do not fit"):
        bundle.from_pretrained(tmp_path / "wrong")
    bundle.save_pretrained(learn(kinds(level="superlabel"), **FIXED), tmp_path / "plain")
    told = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert "subclasses" not in told and "min_subclass_probability" not in told["decision"]


def test_a_catalog_keeps_the_subclasses(shop, tmp_path):
    """A newcomer has none, names of products follow them, merged products have those of both, and undo ends it all."""
    catalog = Catalog.open(shutil.copytree(shop, tmp_path / "shop"))
    before = decide(catalog.model, list("abcdef"), ROWS[:6])
    far = (30 + np.random.default_rng(3).standard_normal((3, 5))).astype(np.float32)
    catalog.enroll("quince", [Shot(row, f"{n + 999:064x}", f"{n}.png") for n, row in enumerate(far)])
    found = decide(catalog.model, ["q"], far[:1])[0]
    assert (found.label, found.subclass, found.subclass_typicality_of) == ("quince", "quince", "class")
    assert found.subclass_typicality == found.typicality
    catalog.rename("pear", "nashi")
    catalog.merge("apple", "plum")
    assert pairs(catalog.model) == {
        "nashi": ["nashi"], "plum": ["black", "blue", "green", "red", "red"], "quince": ["quince"],
    }  # fmt: skip
    catalog.remove_product("quince")
    assert pairs(catalog.model).keys() == {"nashi", "plum"}
    for _ in range(4):
        catalog.undo()
    assert decide(catalog.model, list("abcdef"), ROWS[:6]) == before
    catalog.close()


def test_a_removed_class_takes_its_subclasses_with_it(shop, tmp_path):
    """The catalog, its file, its picture and the exported program go on with those of the classes that are left."""
    catalog = Catalog.open(shutil.copytree(shop, tmp_path / "shop"))
    before = catalog.model.answers(ROWS)
    catalog.remove_product("apple")
    far = (30 + np.random.default_rng(3).standard_normal((3, 5))).astype(np.float32)
    catalog.enroll("green", [Shot(row, f"{n + 999:064x}", f"{n}.png") for n, row in enumerate(far)])
    catalog.rename("pear", "nashi")
    model = catalog.model
    catalog.close()
    assert named(model) == (("nashi", "black", "blue", "red", "green"), [0, 1, 1, 1, 2])
    model.subclasses.check(model.mixture.component_class)
    answers = model.answers(ROWS)
    stays = before.predicted == answers.predicted + 1  # the others are at edges, which the shared covariance moves
    assert stays.sum() > 10 and np.array_equal(answers.subclass[stays], before.subclass[stays] - 2)
    assert np.array_equal(answers.subclass_own[stays], before.subclass_own[stays])
    assert subclass_map(model, ROWS, answers.predicted).class_parent.tolist() == [0, 1, 1, 1, 2]
    assert_the_graph_agrees(model)
    export.run(tmp_path / "shop", tmp_path / "out")
    told = runner.Runner(tmp_path / "out").answers(ROWS)
    assert [one["subclass"] for one in told] == [one.subclass for one in decide(model, [""] * 60, ROWS)]


def test_a_subclass_without_components_is_refused(model):
    wrong = replace(model.subclasses, names=(*model.subclasses.names, "none"), class_parent=torch.tensor(
        [*model.subclasses.class_parent.tolist(), 2]
    ))  # fmt: skip
    with pytest.raises(ValueError, match="do not fit"):
        wrong.check(model.mixture.component_class)


def test_no_product_takes_the_name_of_a_kind(shop, tmp_path):
    """Not a new, a renamed or a split one; the name finds no product either, and the one that has the kind is named."""
    catalog = Catalog.open(shutil.copytree(shop, tmp_path / "shop"))
    shots = [Shot(ROWS[0], "9" * 64, "a.png")]
    item = next(item.id for item in catalog.items("plum") if item.split != "test")
    for edit in (
        lambda: catalog.enroll("Green", shots),
        lambda: catalog.rename("pear", "green"),
        lambda: catalog.split("plum", [item], "green"),
    ):
        with pytest.raises(UsageError, match=r"reen' is a kind of apple, and its photos belong there\. Enroll them as"):
            edit()
    with pytest.raises(UsageError, match=r"^'red' is a kind of apple and plum"):
        catalog.enroll("red", shots)
    for edit in (catalog.remove_product, catalog.items):
        with pytest.raises(
            NoInput, match=r"^'green' is no product of its own but a kind of apple\. Give apple instead"
        ):
            edit("green")
    assert catalog.revision == 0
    assert catalog.enroll("pear", shots).product.name == "pear"
    catalog.rename("pear", "Pear")
    catalog.remove_product("apple")
    catalog.rename("Pear", "green")
    catalog.close()


def named(model):
    """The subclasses, and the class of each."""
    return model.subclasses.names, model.subclasses.class_parent.tolist()


def pairs(model):
    """The names of the subclasses of each product."""
    found = {}
    for name, owner in zip(*named(model), strict=True):
        if owner >= 0:
            found.setdefault(model.classes[owner], []).append(name)
    return {product: sorted(names) for product, names in found.items()}


def test_a_forgotten_item_leaves_no_trace(shop, tmp_path):
    """The components are those of the other rows, each of its subclass: weights, means, covariance."""
    catalog = Catalog.open(shutil.copytree(shop, tmp_path / "shop"))
    gone = next(item for item in catalog.items(catalog.product("plum")) if item.split == "train")
    catalog.remove_item(gone.id)
    made = catalog.model.mixture
    catalog.close()
    rows = training_set.stored(bundle.recipe_of(tmp_path / "shop"), catalog.model.identity)
    kept = rows.select(np.array([s != "test" and id != gone.source for s, id in zip(rows.split, rows.id, strict=True)]))
    below = subclasses_of(kept, catalog.model.classes)
    x, labels = torch.from_numpy(kept.embedding).double(), torch.from_numpy(below.labels)
    refit = classes.fit(classes.Plan("tied", prior=Prior(0.0, 0.1)), x, labels, len(below.names))
    for name in ("log_weight", "mean"):
        torch.testing.assert_close(getattr(made, name), getattr(refit, name).float(), atol=1e-5, rtol=0)
    torch.testing.assert_close(made.component_log_prob(x), refit.component_log_prob(x), atol=1e-3, rtol=0)


def test_the_graph_gives_the_same_subclasses(model):
    assert_the_graph_agrees(model)


def assert_the_graph_agrees(model):
    session = onnxruntime.InferenceSession(head_bytes(model), providers=["CPUExecutionProvider"])
    names, answers = output_names(model), model.answers(ROWS)
    found = dict(zip(names, session.run(list(names), {"features": ROWS}), strict=True))
    for name in names[-3:]:
        np.testing.assert_allclose(found[name], getattr(answers, name), atol=1e-5)
    assert np.array_equal(found["subclass"], answers.subclass)


def test_every_way_out_has_the_subclass(shop, tmp_path, capsys):
    """Python, the command line as JSON, lines and CSV, and the exported program."""
    np.save(tmp_path / "rows.npy", ROWS[:8])
    decisions = mixtura.load(shop).predict([tmp_path / "rows.npy"])
    assert command(["predict", str(shop), str(tmp_path / "rows.npy"), "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert command(["predict", str(shop), str(tmp_path / "rows.npy"), "-q"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert command(["predict", str(shop), str(tmp_path / "rows.npy"), "--csv", str(tmp_path / "a.csv"), "-q"]) == 0
    with (tmp_path / "a.csv").open() as file:
        table = list(csv.DictReader(file))
    export.run(shop, tmp_path / "out")
    told = runner.Runner(tmp_path / "out").answers(ROWS[:8])
    capsys.readouterr()
    assert runner.main([str(tmp_path / "rows.npy"), "--folder", str(tmp_path / "out")]) == 0
    plain = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[5:] for line in plain] == [
        [one.subclass or ""] + [one.reason] * bool(one.reason) for one in decisions
    ]  # fmt: skip
    for decision, record, line, row, answer in zip(decisions, records, lines, table, told, strict=True):
        assert record["subclass"] == answer["subclass"] == decision.subclass
        assert line[5] == row["subclass"] == (decision.subclass or "")
        for key in ("subclass_probability", "subclass_typicality"):
            assert record[key] == getattr(decision, key) == float(row[key]) == pytest.approx(answer[key], abs=1e-5)
        assert answer["subclass_typicality_of"] == row["subclass_typicality_of"] == decision.subclass_typicality_of


def test_a_fit_says_what_subclasses_do_to_the_classes(shop, tmp_path):
    """Of the model of the classes alone, on the same test items; not of one that has subclasses itself."""
    keys = {"data.kind": "features", "data.root": shop.parent / "store", **KEYS}
    plain = fit.run(resolve(keys | {"output": tmp_path / "m", "data.level": "superlabel"}))
    both = fit.run(resolve(keys | {"output": tmp_path / "m", "data.level": "both"}))
    tops = [f"{100 * made.evaluation.metrics['top1']:.1f}%" for made in (plain, both)]
    losses = [f"{made.evaluation.metrics['nll']:.3f}" for made in (plain, both)]
    said = f"accuracy {' and '.join(tops)}, NLL {' and '.join(losses)} nats."
    assert both.notes[-1] == f"Classes on the same 61 test items, without and with subclasses: {said}"
    again = fit.run(resolve(keys | {"output": tmp_path / "m", "data.level": "both"}))
    assert not any("subclasses" in note for note in (*plain.notes, *again.notes))


def test_the_service_has_the_subclass(model):
    made = decide(model, ["0"], ROWS[:1])[0].to_dict()
    told = {**made, "decision_id": "d-1", "candidates": [one | {"id": None} for one in made["candidates"]]}
    del told["false_discovery_rate"]
    found = schemas.Decision.model_validate(told).model_dump()
    assert {key: found[key] for key in made if key.startswith("subclass")} == {
        key: value for key, value in made.items() if key.startswith("subclass")
    }


def test_limits_from_confirmed_rows_are_those_of_the_classes(shop, tmp_path):
    """A store names products by its superlabels; then no subclass has items of its own to compare with."""
    catalog = Catalog.open(shutil.copytree(shop, tmp_path / "shop"))
    confirmed = recalibrate.from_folder(catalog, shop.parent / "store")
    assert set(confirmed.label) == {"apple", "pear", "plum"}
    model = catalog.model
    again = replace(model, typicality=replace(model.typicality, subclass=model.typicality.subclass[:0]))
    answers = again.answers(ROWS)
    assert not answers.subclass_own.any()
    assert np.array_equal(answers.subclass_typicality, answers.typicality)
    catalog.close()


def test_what_cannot_have_subclasses_is_refused(features, tmp_path):
    for keys in ({"head.name": "softmax", "fit.solver": "gradient"}, {"fit.solver": "gradient"}):
        recipe = resolve(
            {"data.kind": "features", "data.root": tmp_path, "output": tmp_path, "data.level": "both"} | keys
        )
        with pytest.raises(UsageError, match=r"^--level both .* use --level superlabel\.$"):
            fitting.check_names(recipe)
    with pytest.raises(UsageError, match=r"^A sweep compares heads on one level"):
        grid.gathered(resolve({"data.level": "both"}))
    rows = features(np.zeros((3, 2)), ["x", None, None], superlabel=["X", "X", "Y"])
    with pytest.raises(LabelError, match=r"^rows: 1 items have no label, the first 'i1'"):
        features_at(rows, "both", "rows")
    assert features_at(rows.select([0, 2]), "both", "rows").sublabel == ["x", "Y"]

"""Kinds that an edit gives to products: those of a fit of both levels, taken back to the last bit."""

import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from mixtura.catalog import Catalog, Shot, statistics
from mixtura.catalog.rebuild import CatalogState, ComponentGroup, model_of
from mixtura.catalog.subclasses import ClassKinds
from mixtura.core.classes import FLOOR_SHARE
from mixtura.core.covariance import FAMILIES
from mixtura.core.mixture import Mixture
from mixtura.core.moments import LabeledItems, labeled
from mixtura.errors import NoInput, UsageError
from mixtura.features import imports
from mixtura.recipe import resolve
from mixtura.tasks import fit, prior

EXACT = [family for family in FAMILIES if family != "lowrank"]  # a rank is found step by step, not by sums
KINDS = (("apple", "red"), ("apple", "green"), ("pear", "pear"), ("plum", "blue"), ("plum", "black"))
ROWS = np.random.default_rng(9).standard_normal((60, 5)).astype(np.float32) * 4
KEYS = {
    "data.kind": "features", "head.family": "tied", "head.shrinkage": 0.1, "head.feature_scale": "none",
    "head.variance_floor": 1e-9, "projection": ["identity"],
}  # fmt: skip


@pytest.fixture(scope="module")
def rows(features):
    """Items of three classes; two of them hold two kinds each."""
    rng = np.random.default_rng(1)
    kind = rng.permutation(np.repeat(np.arange(5), 30))
    x = 3 * rng.standard_normal((5, 5))[kind] + rng.standard_normal((150, 5))
    above, below = zip(*(KINDS[k] for k in kind), strict=True)
    made = features(x, below, superlabel=list(above))
    return replace(made, identity={**made.identity, "name": "imported:tiny"})


@pytest.fixture(scope="module")
def folders(rows, tmp_path_factory):
    """Models of the same items: of the classes, and of both levels."""
    folder = tmp_path_factory.mktemp("kinds")
    imports.save(rows, folder / "store")
    return {
        level: fit.run(
            resolve(KEYS | {"data.root": folder / "store", "output": folder / level, "data.level": level})
        ).bundle_path
        for level in ("superlabel", "both")
    }


@pytest.fixture
def shop(folders, tmp_path):
    """The catalog of the classes alone."""
    return Catalog.open(shutil.copytree(folders["superlabel"], tmp_path / "shop"))


@pytest.fixture
def kinds_of(rows):
    """The true kind of each item that a product is learned from, by its number."""
    true = dict(zip(rows.id, rows.label, strict=True))

    def make(catalog, product):
        return {item.id: true[item.source] for item in catalog.items(product) if item.split != "test"}

    return make


def components(model):
    """Weight, mean and owners of each component, by product and kind; and the covariance."""
    known, mixture = model.subclasses, model.mixture
    rows = zip(known.component_subclass.tolist(), mixture.log_weight.tolist(), mixture.mean.tolist(), strict=True)
    named = {(model.classes[known.class_parent[s]], known.names[s]): [weight, *mean] for s, weight, mean in rows}
    return named, mixture.covariance.dense(mixture.n_components, mixture.dimension)[0]


def counts(catalog, product):
    return {kind.name: len(kind.items) for kind in catalog.kinds(product)}


def assert_same(one, two, atol=1e-6, rounding=1e-6):
    """``rounding`` is what a fit adds to a covariance that it sums in float32."""
    (ours, cov), (theirs, other) = components(one), components(two)
    assert ours.keys() == theirs.keys()
    for pair in ours:
        np.testing.assert_allclose(ours[pair], theirs[pair], atol=atol)
    torch.testing.assert_close(cov, other, atol=rounding, rtol=0)
    posteriors = [replace(model, temperature=1.0).answers(ROWS).posterior for model in (one, two)]
    np.testing.assert_allclose(*posteriors, atol=max(1e-6, rounding))


def same_bits(one, two):
    """Whether two models give the same answers, from the same tensors."""
    parts = [(model.mixture.state(), model.typicality.state()) for model in (one, two)]
    return all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in zip(*parts, strict=True)
    )


@pytest.mark.parametrize(("n_components", "divided"), [(1, (1, 3)), (2, (0, 1, 2, 3))])
@pytest.mark.parametrize("family", EXACT)
def test_divided_classes_are_estimated_from_their_kinds(cloud, learn, monkeypatch, family, n_components, divided):
    """The closed form for the pairs of class and kind, to 1e-9 in float64, whatever components classes had."""
    features = cloud(n=240, classes=4, dimension=5, seed=3)
    train = features.select(np.array([split != "test" for split in features.split]))
    model = learn(features, head__family=family, head__n_components=n_components, head__shrinkage=0.1)
    kept = Mixture.to
    monkeypatch.setattr(Mixture, "to", lambda self, target: self if target is torch.float32 else kept(self, target))
    label = torch.from_numpy(train.label_index(model.classes))
    weight = torch.rand(len(label), generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    items = LabeledItems(model.project(train.embedding).double(), label, weight)
    floor = statistics.floor_of(model, items, FLOOR_SHARE)
    base = statistics.base_of(model, statistics.sums_of(model.mixture, items), floor)
    none = items.select(torch.zeros(0, dtype=torch.int64))
    kind = torch.arange(len(label)) * 7 % 3 * torch.isin(label, torch.tensor(divided))
    kinds = tuple(
        ClassKinds.of(c, items.select(label == c), [("", "a", "b")[k] for k in kind[label == c]]) for c in divided
    )
    parts = tuple(ComponentGroup(c, c) for c in range(4))
    made = model_of(base, CatalogState(model.classes, parts, none, none, kinds), lambda _: None, None)
    _, pair = (3 * label + kind).unique(return_inverse=True)
    count = int(pair.max()) + 1
    (sums,) = labeled(type(model.mixture.covariance), items.x, pair, count, weight)
    refit = Mixture.from_moments(sums, base.floor, base.prior, torch.arange(count), count)
    torch.testing.assert_close(made.mixture.mean, refit.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(made.mixture.log_weight, refit.log_weight, rtol=1e-9, atol=1e-9)
    ours, theirs = (one.covariance.dense(count, refit.dimension) for one in (made.mixture, refit))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    names = [f"{made.classes[c]}/{n}" for n, c in zip(made.subclasses.names, made.subclasses.class_parent, strict=True)]
    assert {"c1/c1", "c1/a", "c1/b", "c3/a"} < set(names) and len(names) == count
    made.subclasses.check(made.mixture.component_class)


def test_given_kinds_are_those_of_a_fit_of_both_levels(shop, folders, kinds_of):
    """Components, covariance and posteriors; decisions name the kind. Undo gives the model back to the last bit."""
    before = shop.model
    true = {name: kinds_of(shop, name) for name in ("apple", "plum")}
    effect = shop.give_kinds(true)
    assert_same(shop.model, Catalog.open(folders["both"]).model, rounding=1e-3)
    assert effect.edit.kind == "kinds" and [one.product for one in effect.kinds] == ["apple", "plum"]
    assert effect.kinds[0].before == {"apple": len(true["apple"])}
    assert effect.kinds[0].after == Counter(true["apple"].values())
    assert effect.edit.summary.startswith("apple has 2 kinds: ") and "plum has 2 kinds: " in effect.edit.summary
    assert len(effect.notes) == 2 and "would be unknown now" in effect.notes[0]
    assert counts(shop, "plum") == Counter(true["plum"].values())
    again = Catalog.open(shop.folder)
    assert same_bits(again.model, shop.model)
    named = {one.subclass for one in shop.decide(["0"] * 60, ROWS)}
    assert named & {"red", "green", "blue", "black"}
    again.undo()
    assert same_bits(shop.model, before) and shop.model.subclasses is None
    assert [kind.name for kind in shop.kinds("apple")] == ["apple"]


def test_kinds_are_merged_renamed_and_given_back(shop, kinds_of):
    before, true = shop.model, kinds_of(shop, "plum")
    blue = list(true.values()).count("blue")
    shop.give_kinds({"plum": {item: name for item, name in true.items() if name == "blue"}})
    assert counts(shop, "plum") == {"blue": blue, "plum": len(true) - blue}
    part = shop.model
    shop.rename_kinds("plum", {"plum": "Black"})
    assert {kind.name for kind in shop.kinds("plum")} == {"blue", "Black"}
    shop.rename_kinds("plum", {"black": "PLUM"})  # another spelling of the kind, and of the product
    assert same_bits(shop.model, part)
    shop.rename("plum", "prune")
    assert {kind.name for kind in shop.kinds("prune")} == {"blue", "prune"}
    shop.undo()
    shop.rename_kinds("plum", {"blue": "one", "plum": "one"})
    assert [kind.name for kind in shop.kinds("plum")] == ["one"]
    torch.testing.assert_close(shop.model.mixture.mean, before.mixture.mean)
    effect = shop.rename_kinds("plum", {"one": ""})
    assert effect.edit.summary == "plum has no kinds any more." and same_bits(shop.model, before)


def test_a_forgotten_item_leaves_no_trace_in_its_kind(shop, kinds_of):
    """Removed before or after: the same model. And so for items that come, go to another product, or follow a merge."""
    true = kinds_of(shop, "apple")
    gone = next(iter(true))
    shop.give_kinds({"apple": true})
    shop.remove_item(gone)
    after = shop.model
    for _ in range(2):
        shop.undo()
    shop.remove_item(gone)
    shop.give_kinds({"apple": {item: name for item, name in true.items() if item != gone}})
    assert_same(after, shop.model, atol=1e-6)

    moved = [item for item, name in true.items() if name == "red" and item != gone][:4]
    shop.split("apple", moved, "crab")
    assert [kind.name for kind in shop.kinds("crab")] == ["crab"]
    assert sum(counts(shop, "apple").values()) == len(true) - 5
    shop.merge("apple", "pear")
    assert {kind.name for kind in shop.kinds("pear")} == {"pear", "red", "green"}
    shop.undo()
    shop.remove_product("apple")
    assert shop.model.subclasses is None
    shop.undo()
    shop.model.subclasses.check(shop.model.mixture.component_class)


def test_fitted_kinds_are_merged_without_a_fit(folders, tmp_path, kinds_of):
    """What training or labels have found is where an edit starts from; what it leaves alone stays to the bit."""
    shop = Catalog.open(shutil.copytree(folders["both"], tmp_path / "shop"))
    before, true = shop.model, Counter(kinds_of(shop, "plum").values())
    assert counts(shop, "plum") == true
    shop.rename_kinds("plum", {"blue": ""})
    assert counts(shop, "plum") == {"plum": true["blue"], "black": true["black"]}
    shop.rename_kinds("plum", {"black": ""})
    assert [kind.name for kind in shop.kinds("plum")] == ["plum"]
    named = zip(shop.model.subclasses.names, shop.model.subclasses.class_parent.tolist(), strict=True)
    assert [n for n, c in named if shop.model.classes[c] == "plum"] == ["plum"]
    for _ in range(2):
        shop.undo()
    assert same_bits(shop.model, before)


def test_kinds_of_a_newcomer_have_densities_of_their_own(shop):
    """They share the weight of the product, which stays that of an average one."""
    far = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32) + np.repeat(
        np.float32([[25], [40]]), 4, 0
    )
    shop.enroll("quince", [Shot(row, f"{n + 999:064x}", f"{n}.png") for n, row in enumerate(far)])
    weight = shop.model.mixture.log_weight.exp()[-1:].sum()
    items = [item.id for item in shop.items("quince")]
    shop.give_kinds({"quince": {item: "near" if n < 4 else "far" for n, item in enumerate(items)}})
    assert [one.subclass for one in shop.decide(list("abcdefgh"), far)] == ["near"] * 4 + ["far"] * 4
    torch.testing.assert_close(shop.model.mixture.log_weight.exp()[-2:].sum(), weight)


@pytest.mark.parametrize(
    ("wanted", "error", "said"),
    [
        ({"apple": {10**6: "red"}}, NoInput, "Item 1000000 is no photo that apple is learned from"),
        ({"apple": {1: "Pear"}}, (UsageError, NoInput), "Pear|no photo"),
        ({"apple": {}}, UsageError, "of these kinds already"),
    ],
)
def test_what_cannot_be_a_kind_is_refused(shop, kinds_of, wanted, error, said):
    with pytest.raises(error, match=said):
        shop.give_kinds(wanted)
    first = next(iter(kinds_of(shop, "apple")))
    for name, why in (("PEAR", "'pear' is a product of its own"), ("unknown", "verdict"), ("a\x00b", "does not do")):
        with pytest.raises(UsageError, match=why):
            shop.give_kinds({"apple": {first: name}})
    test = next(item.id for item in shop.items("apple") if item.split == "test")
    with pytest.raises(NoInput, match="no photo that apple is learned from"):
        shop.give_kinds({"apple": {test: "red"}})
    with pytest.raises(NoInput, match="There is no kind 'blau'"):
        shop.rename_kinds("plum", {"blau": "blue"})
    assert shop.revision == 0


def test_photos_are_enrolled_as_a_kind_of_a_product(shop):
    """A new kind has a density of its own under its product, further photos join it, and undo takes them back."""
    before = shop.model
    far = (np.random.default_rng(0).standard_normal((6, 5)) + 25).astype(np.float32)
    shots = [Shot(row, f"{n + 999:064x}", f"{n}.png") for n, row in enumerate(far)]
    effect = shop.enroll("apple", shots[:4], "crab")
    assert effect.kinds[0].after == effect.kinds[0].before | {"crab": 4}
    assert {(one.label, one.subclass) for one in shop.decide(list("abcdef"), far)} == {("apple", "crab")}
    shop.enroll("apple", shots[4:], "CRAB")
    assert counts(shop, "apple")["crab"] == 6
    with pytest.raises(NoInput, match="There is no product 'nobody'"):
        shop.enroll("nobody", shots, "crab")
    for _ in range(2):
        shop.undo()
    assert same_bits(shop.model, before)


def test_photos_of_a_kind_join_the_part_that_has_the_kind(shop):
    """What was fitted stays as it is: two photos give its class no second, unsure density of that kind."""
    far = (np.random.default_rng(0).standard_normal((6, 5)) + 25).astype(np.float32)
    shots = [Shot(row, f"{n + 999:064x}", f"{n}.png") for n, row in enumerate(far)]
    before = shop.model
    shop.enroll("apple", shots[:4], "crab")
    shop.enroll("apple", shots[4:], "crab")
    assert shop.model.mixture.n_components == before.mixture.n_components + 1
    own = shop.model.mixture.mean[shop.model.mixture.component_class == 0]
    assert any(torch.equal(one, before.mixture.mean[0]) for one in own)


def test_kinds_of_a_newcomer_change_no_prior(shop, tmp_path):
    shares = tmp_path / "shares.csv"
    shares.write_text("apple,0.6\npear,0.2\nplum,0.2\n")
    prior.write(shop.folder, prior.change_prior(shop.folder, str(shares)))
    far = (np.random.default_rng(0).standard_normal((8, 5)) + 25).astype(np.float32)
    shop.enroll("quince", [Shot(row, f"{n + 999:064x}", f"{n}.png") for n, row in enumerate(far)])
    before = shop.model.prior.share
    torch.testing.assert_close(before, torch.tensor([0.45, 0.15, 0.15, 0.25], dtype=torch.float64))
    shop.give_kinds({"quince": {item.id: "abc"[n % 3] for n, item in enumerate(shop.items("quince"))}})
    torch.testing.assert_close(shop.model.prior.share, before)

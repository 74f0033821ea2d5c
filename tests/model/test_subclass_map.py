"""The picture of named subclasses: the same again, and means among their own items."""

from dataclasses import replace

import numpy as np
import pytest

from mixtura.model.subclass_map import PER_NEIGHBOR, laid_out, subclass_map
from mixtura.pipeline.levels import features_at
from mixtura.records.decision import SubclassMap
from mixtura.report.subclass_map import HUES, picture

KINDS = (("apple", "red"), ("apple", "green"), ("pear", "long"), ("plum", "blue"), ("plum", "black"))
FIXED = {"head__family": "tied", "head__shrinkage": 0.1, "head__feature_scale": "none", "projection": ["identity"]}
EACH = 30


@pytest.fixture(scope="module")
def fitted(features, learn):
    """A model of three classes with five subclasses far apart, its rows, and the class and the kind of each."""
    rng = np.random.default_rng(0)
    kind = np.repeat(np.arange(5), EACH)
    x = (8 * rng.standard_normal((5, 6))[kind] + rng.standard_normal((len(kind), 6))).astype(np.float32)
    above, below = zip(*(KINDS[k] for k in kind), strict=True)
    model = learn(features_at(features(x, below, superlabel=list(above)), "both", "kinds"), **FIXED)
    return model, x, np.array([model.classes.index(name) for name in above]), kind


@pytest.fixture(scope="module")
def view(fitted):
    model, x, true, _ = fitted
    return subclass_map(model, x, true)


def test_means_lie_among_their_own_items(fitted, view):
    model, x, true, _ = fitted
    assert view.xy.shape == (len(x), 2) and view.subclass.shape == (5, 2) and view.mean.shape == (3, 2)
    nearest = np.linalg.norm(view.xy[:, None] - view.subclass, axis=2).argmin(1)
    assert (view.class_parent[nearest] == view.label).mean() > 0.98
    np.testing.assert_array_equal(np.sort(view.label), np.sort(true))
    for name, subclass, parent in zip(model.subclasses.names, view.subclass, view.class_parent, strict=True):
        assert (model.classes[parent], name) in KINDS
        assert np.linalg.norm(view.xy[view.label == parent] - subclass, axis=1).min() < 5


def test_the_same_items_give_the_same_picture(fitted, view):
    model, x, true, _ = fitted
    again = subclass_map(model, x, true)
    assert again is not None
    np.testing.assert_array_equal(again.xy, view.xy)
    assert picture(again, model.classes) == picture(view, model.classes)


def test_few_items_strangers_and_models_without_subclasses(fitted):
    model, x, true, _ = fitted
    few = np.arange(0, len(x), 12)
    assert len(few) < 30 * PER_NEIGHBOR  # so the perplexity has to fall
    drawn = subclass_map(model, x[few], np.where(few < 24, -1, true[few]))
    assert drawn is not None and len(drawn.xy) == (few >= 24).sum() and np.isfinite(drawn.xy).all()
    assert subclass_map(model, x[:5], true[:5]) is None
    assert subclass_map(replace(model, subclasses=None), x, true) is None


def test_the_drawing_has_a_plus_a_subclass_and_a_star_a_class(view):
    drawn = picture(view, ("apple", "<b>", "plum"))
    assert drawn.count('class="plus hue') == 5 and drawn.count('class="star hue') == 3
    assert "&lt;b&gt;" in drawn and "<b>" not in drawn and 'class="kind hue2"' in drawn
    many = HUES + 1
    rng = np.random.default_rng(0)
    xy = rng.standard_normal((many, 2))
    crowd = SubclassMap(xy, np.arange(many), xy, np.arange(many), xy)
    assert picture(crowd, tuple(f"c{c}" for c in range(many))).count("star hue0") == 2


@pytest.mark.parametrize("x", [np.zeros((16, 8)), np.ones((16, 3)), np.full((16, 1), 2.0)])
def test_equal_rows_share_one_place(x):
    drawn = laid_out(x, np.zeros(16, np.int64), x[:1], np.zeros(1, np.int64), x[:1])
    places = np.concatenate([drawn.xy, drawn.subclass, drawn.mean])
    assert places.shape == (18, 2) and (places == places[0]).all()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e15])
def test_features_of_one_axis_are_laid_out(scale):
    x = scale * np.random.default_rng(0).standard_normal((40, 1))
    drawn = laid_out(x, np.zeros(40, np.int64), x[:1], np.zeros(1, np.int64), x[:1])
    assert drawn.xy.shape == (40, 2) and np.isfinite(drawn.xy).all() and len(np.unique(drawn.xy, axis=0)) > 1

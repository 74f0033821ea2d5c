"""Near-duplicates that were planted are found, and nothing is where there are none."""

import numpy as np
import pytest

from mixtura.errors import NoInput
from mixtura.features.neighbors import others, pairs_above
from mixtura.tasks import duplicates


@pytest.fixture
def planted(features):
    """300 rows in 16 dimensions of which rows 290.. nearly repeat the first ten."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 16))
    x[290:] = x[:10] + 1e-3 * rng.standard_normal((10, 16))
    label = ["a"] * 300
    label[290] = "b"
    return features(x, label, split=["train"] * 291 + ["test"] * 9)


def test_planted_copies_are_found_and_nothing_else(planted):
    found = duplicates.run(planted)
    assert [tuple(near.id for near in group.items) for group in found.groups] == [
        (f"i{row}", f"i{290 + row}") for row in range(10)
    ]
    assert found.pairs == 10 and found.items == 300
    assert found.groups[0].labels == ("a", "b") and found.groups[1].labels == ("a",)
    assert found.groups[0].splits == ("train",) and found.groups[1].splits == ("test", "train")
    assert f"{found.limit:.4f}" in found.why


def test_where_there_are_none_none_are_found(features):
    x = np.random.default_rng(1).standard_normal((400, 16))
    assert duplicates.run(features(x, ["a"] * 400)).groups == ()


def test_groups_hold_every_pair_above_the_limit(cloud):
    features = cloud(n=80, separation=2.0)
    import torch

    x = torch.from_numpy(features.embedding)
    pairs, cosine = pairs_above(x, 0.97)
    found = duplicates.run(features, 0.97)
    assert found.pairs == len(pairs) > 0
    of = {near.id: number for number, group in enumerate(found.groups) for near in group.items}
    assert all(of[f"i{a}"] == of[f"i{b}"] for a, b in pairs.tolist())
    assert min(group.lowest for group in found.groups) == pytest.approx(float(cosine.min()))
    nearest = others(x, 1)[0][:, 0]
    for group in found.groups:
        for near in group.items:
            assert near.similarity == pytest.approx(float(nearest[int(near.id[1:])]), abs=1e-6)


def test_the_limit_moves_with_the_distances():
    """Distances twice as large: a limit twice as far from 1; nothing depends on the unit."""
    distance = np.exp(np.random.default_rng(0).normal(-3, 0.4, 500))
    one, two = (duplicates.limit_of(1 - scale * distance)[0] for scale in (1, 2))
    assert (1 - two) / (1 - one) == pytest.approx(2)


def test_the_limit_lets_few_usual_items_through():
    """Of log-normal distances 3.5 robust deviations keep all but about two in ten thousand."""
    distance = np.exp(np.random.default_rng(0).normal(-3, 0.4, 100_000))
    limit = duplicates.limit_of(1 - distance)[0]
    assert 0.5e-4 < np.mean(1 - distance >= limit) < 5e-4


def test_few_or_equal_items():
    limit, why = duplicates.limit_of(np.full(5, 0.9))
    assert limit == duplicates.EQUAL_COSINE and "too few" in why
    assert duplicates.limit_of(np.ones(50))[0] == duplicates.EQUAL_COSINE


def test_one_item_has_no_twin(features):
    with pytest.raises(NoInput, match="There are 1 items"):
        duplicates.run(features(np.eye(1, 3), ["a"]))

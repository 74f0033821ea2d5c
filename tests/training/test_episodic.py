"""Steps and validation by episodes, against loops; photos that cannot be read change nothing but their own part."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mixtura.datasets.episodes import Design, Pool, draw
from mixtura.errors import NoInput
from mixtura.objectives.prototypical import DISTANCES, Prototypical
from mixtura.training.episodic import loss_of, parted, scored

WAY, SHOT, QUERY, WIDTH = 3, 2, 2, 4


class Vectors(nn.Module):
    """Gives the vectors of a batch back, times a parameter."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, batch):
        return self.scale * batch["x"]


def batch_of(labels, rows=None):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(len(labels), WIDTH, generator=generator)
    rows = torch.arange(len(labels)) if rows is None else rows
    return {"x": x[rows], "label": labels[rows], "weight": torch.ones(len(rows)), "row": rows}


LABELS = torch.tensor([5, 5, 2, 2, 9, 9, 5, 5, 2, 2, 9, 9])  # support first, class by class, then the queries


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_step_is_the_objective_of_its_episode(distance):
    batch, module = batch_of(LABELS), Vectors()
    x, made = batch["x"], Prototypical(distance)
    loss, logged = loss_of(made, SHOT)(module, batch)
    support, query = x[[2, 3, 0, 1, 4, 5]].reshape(WAY, SHOT, WIDTH), x[6:]
    truth = torch.tensor([1, 1, 0, 0, 2, 2])
    assert_close(loss, made(support, query, truth))
    loss.backward()
    assert float(module.scale.grad) != 0 or distance == "cosine"
    right = (made.scores(support[None], query[None])[0].argmax(1) == truth).double().mean()
    assert float(logged["accuracy"]) == float(right)


def test_a_query_takes_the_place_of_a_support_photo_that_cannot_be_read():
    support, query, labels = parted(LABELS[torch.tensor([1, 2, 3, 4, 5, 6, 7, 8, 10])], SHOT)
    assert support.tolist() == [[1, 2], [0, 5], [3, 4]]  # of 2, 5, 9
    assert query.tolist() == [6, 7, 8] and labels.tolist() == [1, 0, 2]


def test_a_class_without_enough_photos_is_left_out_and_no_query_is_no_gradient():
    support, query, labels = parted(torch.tensor([4, 7, 7, 7, 8, 8]), 2)
    assert support.tolist() == [[1, 2], [4, 5]] and query.tolist() == [3] and labels.tolist() == [0]
    module = Vectors()
    loss, logged = loss_of(Prototypical(), SHOT)(module, batch_of(LABELS, torch.tensor([0, 2])))
    loss.backward()
    assert float(loss.detach()) == 0 == float(module.scale.grad) and float(logged["accuracy"]) == 0


def episodes():
    names = np.repeat(["a", "b", "c", "d"], 6)
    ids = [f"{number:02}" for number in range(len(names))]
    return draw("nway", Pool.of(ids, names.tolist()), Design(WAY, SHOT, QUERY, 5)).located(ids, names.tolist())


def test_validation_scores_are_those_of_each_episode_alone():
    listed, made = episodes(), Prototypical()
    whole = batch_of(torch.zeros(24, dtype=torch.int64))
    split = [{name: tensor[part] for name, tensor in whole.items()} for part in (slice(0, 10), slice(10, 24))]
    scores, labels = scored(made, listed.episodes, Vectors(), split)
    x = whole["x"]
    expected = [made.scores(x[one.support][None], x[one.query.ravel()][None])[0] for one in listed.episodes]
    assert_close(scores, torch.cat(expected))
    assert labels.tolist() == [0, 0, 1, 1, 2, 2] * 5


def test_validation_leaves_out_only_what_a_missing_photo_belongs_to():
    listed = episodes()
    missing = int(listed.episodes[0].query[1, 0])
    rows = torch.tensor([row for row in range(24) if row != missing])
    labels = torch.zeros(24, dtype=torch.int64)
    scores, _ = scored(Prototypical(), listed.episodes, Vectors(), [batch_of(labels, rows)])
    whole, _ = scored(Prototypical(), listed.episodes, Vectors(), [batch_of(labels)])
    kept = [
        not (missing in one.support or item == missing)
        for one in listed.episodes
        for item in one.query.ravel().tolist()
    ]
    assert 0 < sum(kept) < len(kept)
    assert_close(scores, whole[torch.tensor(kept)])
    with pytest.raises(NoInput, match="None of the validation photos can be read"):
        scored(Prototypical(), listed.episodes, Vectors(), [])

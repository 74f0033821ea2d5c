"""The loss of an episode against a plain loop, its gradient against differences, and what must not change it."""

import math

import pytest
import torch
from torch.testing import assert_close

from mixtura.errors import UsageError
from mixtura.objectives.prototypical import DISTANCES, Prototypical

WAY, SHOT, EACH, WIDTH = 4, 3, 2, 5


@pytest.fixture
def episode():
    generator = torch.Generator().manual_seed(0)
    support = torch.randn(WAY, SHOT, WIDTH, generator=generator, dtype=torch.float64)
    query = torch.randn(WAY * EACH, WIDTH, generator=generator, dtype=torch.float64)
    return support, query, torch.arange(WAY).repeat_interleave(EACH)


def distance(name, q, c):
    if name == "euclidean":
        return sum((a - b) ** 2 for a, b in zip(q, c, strict=True))
    return 1 - sum(a * b for a, b in zip(q, c, strict=True)) / math.hypot(*q) / math.hypot(*c)


def by_loop(name, support, query, labels):
    """The loss of each query, by the formula in the paper, number by number."""
    means = [[sum(column) / SHOT for column in zip(*shots, strict=True)] for shots in support.tolist()]
    losses = []
    for q, label in zip(query.tolist(), labels.tolist(), strict=True):
        near = [math.exp(-distance(name, q, c)) for c in means]
        losses.append(-math.log(near[label] / sum(near)))
    return losses


@pytest.mark.parametrize("name", DISTANCES)
def test_it_is_that_of_a_plain_loop(episode, name):
    losses = by_loop(name, *episode)
    assert float(Prototypical(name)(*episode)) == pytest.approx(sum(losses) / len(losses), rel=1e-12)
    weight = torch.tensor([0.0, 2.0] * WAY)
    assert float(Prototypical(name)(*episode, weight)) == pytest.approx(sum(losses[1::2]) / WAY, rel=1e-12)


@pytest.mark.parametrize("name", DISTANCES)
def test_the_gradient_is_that_of_differences_through_the_prototypes_too(episode, name):
    support, query, labels = episode
    inputs = support.requires_grad_(), query.requires_grad_()
    assert torch.autograd.gradcheck(lambda s, q: Prototypical(name)(s, q, labels), inputs)
    Prototypical(name)(support, query, labels).backward()
    assert bool((support.grad.abs().amax(2) > 1e-6).all())
    assert_close(support.grad, support.grad[:, :1].expand_as(support.grad))  # each shot is a part of the mean


@pytest.mark.parametrize("name", DISTANCES)
def test_episodes_at_once_are_those_one_by_one_in_any_place(episode, name):
    """What the network adds to all vectors alike changes no Euclidean distance; their length, no cosine."""
    support, query, labels = episode
    made = Prototypical(name)
    both = made.scores(torch.stack([support, -support]), torch.stack([query, -query]))
    assert_close(both[1], made.scores(-support[None], -query[None])[0])
    moved = (support + 3, query + 3) if name == "euclidean" else (7 * support, 7 * query)
    assert_close(made(*moved, labels), made(support, query, labels))


def test_far_from_zero_and_in_bfloat16_distances_keep_their_digits(episode):
    support, query, labels = episode
    far = [(one + 3000).float() for one in (support, query)]
    assert float(Prototypical()(*far, labels)) == pytest.approx(float(Prototypical()(*episode)), rel=1e-2)
    with torch.autocast("cpu", torch.bfloat16):
        loss = Prototypical()(support.float(), query.float(), labels)
    assert loss.dtype == torch.float32 and float(loss) == pytest.approx(float(Prototypical()(*episode)), rel=1e-5)


def test_another_name_is_refused():
    with pytest.raises(UsageError, match=r"no distance 'manhattan'. Use one of: euclidean, cosine"):
        Prototypical.from_options("manhattan")

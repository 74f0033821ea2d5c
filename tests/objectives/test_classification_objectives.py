"""Objectives against torch's cross-entropy and naive loops; what they refuse."""

import math

import pytest
import torch
from torch.testing import assert_close

from mixtura.encoders.common import drawn
from mixtura.errors import NoDensity, UsageError
from mixtura.heads.gaussian import GaussianHead
from mixtura.heads.linear import LinearHead
from mixtura.heads.vmf import VonMisesFisherHead
from mixtura.names import find
from mixtura.objectives import HEAD_OBJECTIVES
from mixtura.objectives.classification import Conditional, Generative, Hybrid, LargeMargin

CLASS_WEIGHT = (0.5, 2.0, 1.0)
LOG_PRIOR = (math.log(0.6), math.log(0.3), math.log(0.1))


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    weight = torch.rand(40, generator=generator, dtype=torch.float64)
    return x, torch.arange(40) % 3, weight


@pytest.fixture
def dense(rows):
    head = VonMisesFisherHead.from_rows(rows[0], rows[1], 3, components=(1, 2, 1))
    head.set_temperature(1.0)  # identities between answers and densities hold at a temperature of one
    return head


@pytest.fixture
def flat(rows):
    return LinearHead.from_rows(rows[0], rows[1], 3)


def test_every_objective_of_the_table_is_lowered_by_steps(rows, dense):
    x, labels, _ = rows
    for name in HEAD_OBJECTIVES:
        objective = find(HEAD_OBJECTIVES, name)()
        head = drawn(0, lambda: VonMisesFisherHead(5, 3)).double()
        adam = torch.optim.Adam(head.parameters(), 0.03)
        losses = []
        for _ in range(30):
            adam.zero_grad()
            loss = objective(head, x, labels)
            loss.backward()
            adam.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] - 0.05, name


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("class_weight", [None, CLASS_WEIGHT])
def test_conditional_is_torchs_cross_entropy(rows, flat, smoothing, class_weight):
    x, labels, _ = rows
    share = None if class_weight is None else torch.tensor(class_weight, dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(flat.class_scores(x), labels, weight=share, label_smoothing=smoothing)
    assert_close(Conditional(smoothing, class_weight)(flat, x, labels), expected, rtol=0, atol=1e-12)


def test_conditional_is_a_naive_loop(rows, flat):
    x, labels, weight = rows
    tau, epsilon = 1.5, 0.1
    total, mass = 0.0, 0.0
    for i in range(len(x)):
        score = [flat.class_scores(x[i : i + 1])[0, c].item() + tau * LOG_PRIOR[c] for c in range(3)]
        normalizer = math.log(sum(map(math.exp, score)))
        log_q = [s - normalizer for s in score]
        y, w = int(labels[i]), float(weight[i])
        smooth = sum(a * q for a, q in zip(CLASS_WEIGHT, log_q, strict=True)) / 3
        total -= w * ((1 - epsilon) * CLASS_WEIGHT[y] * log_q[y] + epsilon * smooth)
        mass += w * CLASS_WEIGHT[y]
    found = Conditional(epsilon, CLASS_WEIGHT, tau, LOG_PRIOR)(flat, x, labels, weight)
    assert_close(found.item(), total / mass, rtol=0, atol=1e-10)


def test_weights_count_rows(rows, flat, dense):
    """A row of weight two is that row twice."""
    x, labels, _ = rows
    weight = torch.ones(40, dtype=torch.float64)
    weight[:7] = 2
    doubled = torch.cat([x, x[:7]]), torch.cat([labels, labels[:7]])
    for objective in (Conditional(0.1, CLASS_WEIGHT), Generative(), Hybrid(0.3), LargeMargin()):
        head = flat if isinstance(objective, Conditional) else dense
        assert_close(objective(head, x, labels, weight), objective(head, *doubled), rtol=0, atol=1e-11)


def test_generative_is_minus_log_joint(rows, dense):
    x, labels, _ = rows
    expected = -sum(dense.class_scores(x)[i, labels[i]] for i in range(40)) / 40
    assert_close(Generative()(dense, x, labels), expected, rtol=0, atol=1e-12)
    posterior = Conditional()(dense, x, labels) - dense.log_prob(x).mean()
    assert_close(Generative()(dense, x, labels), posterior, rtol=0, atol=1e-12)


def test_hybrid_joins_the_two(rows, dense):
    x, labels, _ = rows
    smooth = Conditional(label_smoothing=0.1)
    expected = smooth(dense, x, labels) + 0.7 * Generative()(dense, x, labels) / 5
    assert_close(Hybrid(0.7, smooth)(dense, x, labels), expected, rtol=0, atol=1e-12)
    assert_close(Hybrid(0.0)(dense, x, labels), Conditional()(dense, x, labels), rtol=0, atol=1e-12)


def test_large_margin_is_a_naive_loop(rows, dense):
    x, labels, weight = rows
    joint, far, component_class = dense.component_log_prob(x), dense.distances(x), dense.groups.component_class.tolist()
    margin, share = 0.4, 0.05
    total = 0.0
    for i in range(40):
        y, score, plain = int(labels[i]), [0.0] * 3, 0.0
        for k, c in enumerate(component_class):
            plain += math.exp(joint[i, k].item()) * (c == y)
            score[c] += math.exp(joint[i, k].item() - margin * far[i, k].item() * (c == y))
        total += float(weight[i]) * (-math.log(score[y] / sum(score)) - share * math.log(plain))
    found = LargeMargin(margin, share)(dense, x, labels, weight)
    assert_close(found.item(), total / weight.sum().item(), rtol=0, atol=1e-10)


def test_no_margin_and_no_likelihood_is_cross_entropy(rows, dense):
    x, labels, _ = rows
    assert_close(LargeMargin(0.0, 0.0)(dense, x, labels), Conditional()(dense, x, labels), rtol=0, atol=1e-12)
    assert LargeMargin(0.5, 0.0)(dense, x, labels) > Conditional()(dense, x, labels)


def test_adjustment_makes_rare_classes_count():
    """On scores that say nothing, the adjusted gradient pulls a rare class up harder than a common one."""
    scores = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    loss = Conditional(logit_adjustment=1.0, log_prior=LOG_PRIOR).of_log_posterior(scores, torch.arange(3))
    (slope,) = torch.autograd.grad(loss, scores)
    pulls = -slope.diagonal()
    assert pulls[2] > pulls[1] > pulls[0]


@pytest.mark.parametrize("objective", [Generative(), Hybrid(), LargeMargin()])
def test_a_head_without_density_is_refused(rows, flat, objective):
    with pytest.raises(NoDensity, match="'linear' has no density"):
        objective(flat, rows[0], rows[1])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Conditional(label_smoothing=7.0), "Label smoothing 7.0 is out of range"),
        (lambda: Conditional(label_smoothing=1.0), "from 0 to below 1"),
        (lambda: Conditional(label_smoothing=-0.1), "Label smoothing -0.1"),
        (lambda: Conditional(label_smoothing=math.nan), "Label smoothing nan"),
        (lambda: Conditional(class_weight=(1.0, -1.0)), "Class weights"),
        (lambda: Conditional(class_weight=(0.0, 0.0)), "not all zero"),
        (lambda: Conditional(logit_adjustment=-1.0, log_prior=LOG_PRIOR), "Logit adjustment -1.0"),
        (lambda: Conditional(logit_adjustment=1.0), "needs log_prior"),
        (lambda: Conditional(logit_adjustment=1.0, log_prior=(0.5, -1.0)), "logs of shares"),
        (lambda: Hybrid(-1.0), "Generative weight -1.0"),
        (lambda: LargeMargin(margin=-0.1), "Margin -0.1"),
        (lambda: LargeMargin(generative_weight=math.inf), "Generative weight inf"),
    ],
)
def test_arguments_out_of_range_are_refused(build, message):
    with pytest.raises(UsageError, match=message):
        build()


def test_another_number_of_classes_is_told(rows, flat):
    with pytest.raises(UsageError, match="2 class weights were given for 3 classes"):
        Conditional(class_weight=(1.0, 2.0))(flat, rows[0], rows[1])


def test_hybrid_weighs_the_density_by_the_dimensions_it_has(rows):
    """A head that projects its input has a density of fewer dimensions than its rows."""
    x, labels, _ = rows
    head = GaussianHead.from_rows(x, labels, 3, family="diagonal", projection="pca", width=2)
    expected = Conditional()(head, x, labels) + 0.5 / 2 * Generative()(head, x, labels)
    assert_close(Hybrid(generative_weight=0.5)(head, x, labels), expected)

"""Sparse mixtures: scores by a naive loop, the divergence by quadrature, pruning at the Bayesian price, compression."""

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional
from torch.testing import assert_close

from mixtura.errors import NoDensity, UsageError
from mixtura.heads import sdgm
from mixtura.heads.sdgm import SDGMHead


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(x).float()[order], torch.tensor(y)[order]
    return x[:1078], y[:1078], x[1438:], y[1438:]


def trained(digits, price, epochs=40):
    x, y, _, _ = digits
    torch.manual_seed(0)
    head = SDGMHead.from_rows(x, y, 10, components=2)
    adam = torch.optim.Adam(head.parameters(), 1e-2)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs * 9)
    for epoch in range(epochs):
        share = price * min(1.0, 2 * epoch / epochs) / len(x)
        for rows in torch.randperm(len(x)).split(128):
            loss = functional.nll_loss(head(x[rows]), y[rows]) + share * head.penalty()
            adam.zero_grad()
            loss.backward()
            adam.step()
            cosine.step()
    return head.eval()


def right(head, digits):
    return float((head(digits[2]).argmax(1) == digits[3]).double().mean())


def test_most_weights_of_digits_go_and_accuracy_stays(digits):
    """At the price 1 / N; tolerance 1.5 points, which is 5 of the 359 test digits."""
    free, priced = trained(digits, 0.0), trained(digits, 1.0)
    assert free.sparsity < 0.05
    assert priced.sparsity > 0.5
    assert right(priced, digits) >= right(free, digits) - 0.015
    compact = priced.compressed()
    assert_close(compact(digits[2]), priced(digits[2]), rtol=0, atol=1e-5)
    assert_close(compact.double()(digits[2].double()), priced.double()(digits[2].double()), rtol=0, atol=1e-9)
    assert compact.n_parameters == priced.n_parameters < free.n_parameters / 2


@pytest.mark.parametrize(("quadratic", "pairs"), [("diagonal", 3), ("full", 6)])
def test_scores_are_a_naive_loops_and_the_map_is_standard(blobs, quadratic, pairs):
    x, labels = blobs(dimension=3, modes=2, dtype=torch.float64)
    head = SDGMHead.from_rows(1e3 + 5 * x, labels, 4, components=(2, 1, 1, 2), quadratic=quadratic).eval()
    phi = head.map(1e3 + 5 * x)
    assert phi.shape == (300, 3 + pairs) and head.weight.shape == (5, 3 + pairs)
    assert_close(phi.mean(0), torch.zeros(3 + pairs).double(), rtol=0, atol=1e-9)
    assert_close(phi.square().mean(0), torch.ones(3 + pairs).double(), rtol=0, atol=1e-9)
    scores = [[] for _ in range(4)]
    for k, c in enumerate(head.groups.component_class.tolist()):
        zero = torch.zeros(300, dtype=torch.float64)
        scores[c].append(zero if k == 5 else (phi * head.weight[k]).sum(1) + head.bias[k])
    expected = torch.stack([torch.stack(own).logsumexp(0) for own in scores], 1)
    assert_close(head.class_scores(1e3 + 5 * x), expected, rtol=0, atol=1e-9)


def test_nothing_is_pruned_at_the_start(blobs):
    x, labels = blobs()
    for scale in (1e-3, 1.0, 1e3):
        head = SDGMHead.from_rows(scale * x, labels, 4, components=2, quadratic="full")
        assert head.sparsity == 0.0
        assert head.n_parameters == 7 * (6 + 21) + 7
    assert SDGMHead(6, 4).sparsity == 0.0


def test_start_does_not_depend_on_the_scale_of_features(blobs):
    x, labels = blobs(dtype=torch.float64)
    one, other = (SDGMHead.from_rows(s * x + 3 * s, labels, 4).eval() for s in (1.0, 1e4))
    assert_close(one(x + 3), other(1e4 * x + 3e4), rtol=0, atol=1e-6)


def test_noise_of_training_has_the_declared_mean_and_variance(blobs):
    x, labels = blobs(n=20, dtype=torch.float64)
    head = SDGMHead.from_rows(x, labels, 4)
    with torch.no_grad():
        head.log_variance.fill_(-1.0)
    torch.manual_seed(0)
    draws = torch.stack([head.train().component_scores(x) for _ in range(1500)]).detach()
    phi = head.map(x)
    mean = functional.linear(phi, head.weight, head.bias).detach()
    deviation = (phi.square().sum(1) * math.exp(-1)).sqrt()[:, None].expand(-1, 3)
    assert_close(draws.mean(0)[:, :3], mean, rtol=0, atol=float(5 * deviation.max() / 1500**0.5))
    assert_close(draws.std(0)[:, :3], deviation, rtol=0.1, atol=0)
    assert (draws[..., 3] == 0).all()


def test_rows_of_a_batch_have_noise_of_their_own(blobs):
    x, labels = blobs(n=20)
    head = SDGMHead.from_rows(x, labels, 4).train()
    with torch.no_grad():
        head.log_variance.fill_(0.0)
    twins = head(x[:1].expand(2, -1))
    assert not torch.equal(twins[0], twins[1])


@pytest.mark.parametrize("log_alpha", [-6.0, -2.0, 0.0, 1.0, 3.0, 6.0])
def test_penalty_is_the_divergence(log_alpha):
    r"""Of N(w, alpha w^2) from a log-uniform prior, by sampling; the constant is set to vanish at infinite noise."""
    torch.manual_seed(0)

    def expected_log(alpha):
        noise = torch.randn(4_000_000, dtype=torch.float64)
        return float((1 + alpha**0.5 * noise).abs().log().mean())

    def divergence(value):
        alpha = math.exp(value)
        return -0.5 * value + expected_log(alpha)

    head = SDGMHead(1, 2).double()
    with torch.no_grad():
        head.weight.fill_(0.3)
        head.log_variance.fill_(log_alpha + 2 * math.log(0.3))
    reference = divergence(20.0)
    assert_close(head.penalty().item() / 2, divergence(log_alpha) - reference, rtol=0, atol=0.015)


def test_pruned_weights_count_in_training_and_not_in_prediction(blobs):
    x, labels = blobs()
    head = SDGMHead.from_rows(x, labels, 4)
    with torch.no_grad():
        head.log_variance[0] = 20.0
    assert head.sparsity == pytest.approx(1 / 3)
    assert (head.eval().component_scores(x)[:, 0] == head.bias[0]).all()
    assert head.train().component_scores(x)[:, 0].std() > 1


def test_components_that_nothing_uses_go(blobs):
    x, labels = blobs()
    head = SDGMHead.from_rows(x, labels, 4, components=2).eval()
    with torch.no_grad():
        head.bias[0] = -200.0
        head.bias[2:4] = -200.0
    compact = head.compressed(x)
    assert compact.counts == [1, 1, 2, 2]
    assert_close(compact.posterior(x), head.posterior(x), rtol=0, atol=1e-6)
    assert sum(head.compressed().counts) == 8


def test_the_reference_may_go_and_constant_features_count_for_nothing(blobs):
    x, labels = blobs(n=200, dtype=torch.float64)
    x[:, 2] = 7.0
    head = SDGMHead.from_rows(x, labels, 4, components=2, quadratic="full").eval()
    with torch.no_grad():
        head.bias += 200.0
    compact = head.compressed(x)
    assert compact.counts == [2, 2, 2, 1]
    assert_close(compact.posterior(x), head.posterior(x), rtol=0, atol=1e-6)
    moved = x.clone()
    moved[:, 2] = -50.0
    assert_close(head(moved), head(x))


def test_a_map_without_any_weight_left_predicts_by_biases(blobs):
    x, labels = blobs()
    head = SDGMHead.from_rows(x, labels, 4).eval()
    with torch.no_grad():
        head.log_variance.fill_(30.0)
    compact = head.compressed()
    assert compact.n_parameters == 3
    assert_close(compact(x), head(x))


def test_size_is_told_in_bytes_before_anything_is_allocated(blobs):
    x, labels = blobs()
    with pytest.raises(UsageError, match=r"525,824 features each takes about 12,\d+,\d+,\d+ bytes, above .*PCA share"):
        SDGMHead(1024, 1000, quadratic="full")
    with pytest.raises(UsageError, match="diagonal map or fewer components"):
        SDGMHead.from_rows(x, labels, 4, most_bytes=1e3)
    assert sdgm.training_bytes("full", 10, 3) == 4 * 65 * (5 * 3 + 3 * 256)


def test_the_count_of_features_is_the_maps():
    for name, pairs in sdgm.QUADRATIC_TERMS.items():
        assert sdgm.size(name, 7) == 7 + len(pairs(7)[0])


def test_sdgm_refuses_what_it_cannot_do(blobs):
    x, labels = blobs()
    with pytest.raises(UsageError, match=r"no quadratic map 'ful'. Did you mean 'full'"):
        SDGMHead.from_rows(x, labels, 4, quadratic="ful")
    for ask in (SDGMHead(6, 4).log_prob, SDGMHead(6, 4).component_log_prob):
        with pytest.raises(NoDensity, match="'sdgm' has no density"):
            ask(x)

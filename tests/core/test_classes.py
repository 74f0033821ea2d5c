import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import NearestCentroid

from mixtura.core import classes
from mixtura.core.classes import Plan, fit
from mixtura.core.covariance import FAMILIES, Prior
from mixtura.core.cross_fitting import Folds
from mixtura.errors import UsageError
from mixtura.testing.covariance_laws import clusters, dense

X, LABELS = clusters(700, 5, 6)
EVEN = torch.arange(500) % 5


def log_posterior(mixture, x=X):
    return mixture.class_log_prob(x).log_softmax(1)


def assert_oracle(mixture, oracle):
    expected = torch.from_numpy(oracle.fit(X.numpy(), LABELS.numpy()).predict_log_proba(X.numpy()))
    torch.testing.assert_close(log_posterior(mixture), expected, rtol=1e-9, atol=1e-9)


def test_one_round_spread_for_all_is_the_nearest_mean():
    x, _ = clusters(500, 5, 6)
    mixture = fit(Plan("spherical", prior=Prior(1e12, 0.0)), x, EVEN, 5)
    nearest = NearestCentroid().fit(x.numpy(), EVEN.numpy())
    assert (mixture.class_log_prob(x).argmax(1).numpy() == nearest.predict(x.numpy())).all()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.7])
def test_tied_is_linear_discriminant_analysis(share):
    mixture = fit(Plan("tied", prior=Prior(0.0, share), floor=0.0), X, LABELS, 5)
    assert_oracle(mixture, LinearDiscriminantAnalysis(solver="lsqr", shrinkage=share))


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_full_is_quadratic_discriminant_analysis(share):
    mixture = fit(Plan("full", prior=Prior(0.0, share), floor=0.0), X, LABELS, 5)
    assert_oracle(mixture, QuadraticDiscriminantAnalysis(solver="eigen", shrinkage=share))


def test_diagonal_is_naive_bayes():
    assert_oracle(fit(Plan("diagonal", floor=0.0), X, LABELS, 5), GaussianNB(var_smoothing=0.0))


def test_full_with_a_prior_is_regularized_discriminant_analysis():
    strength, share = 30.0, 0.2
    mixture = fit(Plan("full", prior=Prior(strength, share), floor=0.0), X, LABELS, 5)
    own = [X[c == LABELS] for c in range(5)]
    scatter = torch.stack([len(x) * x.T.cov(correction=0) for x in own])
    count = torch.tensor([float(len(x)) for x in own], dtype=X.dtype)[:, None, None]
    blended = (scatter + strength * scatter.sum(0) / len(X)) / (count + strength)
    scale = blended.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    expected = (1 - share) * blended + share * scale * torch.eye(6, dtype=X.dtype)
    torch.testing.assert_close(dense(mixture), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_class_priors_are_shares_of_the_weight(family):
    weight = torch.rand(len(X), generator=torch.Generator().manual_seed(0), dtype=X.dtype)
    mixture = fit(Plan(family, (1, 2, 1, 3, 1), rank=2), X, LABELS, 5, weight)
    share = torch.zeros(5, dtype=X.dtype).index_add_(0, LABELS, weight) / weight.sum()
    assert mixture.component_class.tolist() == [0, 1, 1, 2, 3, 3, 3, 4]
    found = torch.zeros(5, dtype=X.dtype).index_add_(0, mixture.component_class, mixture.log_weight.exp())
    torch.testing.assert_close(found, share, rtol=0, atol=1e-9)


def test_components_never_outnumber_half_the_rows():
    x, labels = X[:9], torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 3])
    mixture = fit(Plan("spherical", 4), x, labels, 4)
    assert mixture.component_class.tolist() == [0, 0, 1, 3]


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_rows_along_a_line_stay_positive_definite(family):
    for dimension, n in ((8, 4000), (64, 300), (256, 60)):
        generator = torch.Generator().manual_seed(0)
        line = torch.randn(n, 1, generator=generator) @ torch.randn(1, dimension, generator=generator)
        for x in (line + 30, line.relu()):
            mixture = fit(Plan(family, rank=4), x, torch.arange(n) % 5, 5)
            assert mixture.class_log_prob(x).isfinite().all()


def test_average_variance():
    assert classes.average_variance(X) == pytest.approx(float(X.var(0, correction=0).mean()), rel=1e-12)
    assert classes.average_variance((X + 1e3).float()) == pytest.approx(classes.average_variance(X), rel=1e-4)
    assert classes.average_variance(torch.ones(4, 3)) == 1.0
    times = torch.arange(len(X)) % 3
    repeated = classes.average_variance(X.repeat_interleave(times, 0))
    assert classes.average_variance(X, times.double()) == pytest.approx(repeated, rel=1e-12)


def test_the_most_components_follow_from_weights_as_from_repeated_rows():
    x, labels = torch.arange(6.0)[:, None], torch.tensor([0, 0, 0, 1, 1, 1])
    plan = Plan("spherical", components=5)
    twice = fit(plan, x.repeat(2, 1), labels.repeat(2), 2)
    assert fit(plan, x, labels, 2, torch.full((6,), 2.0)).n_components == twice.n_components == 6
    assert fit(plan, x, labels, 2, torch.full((6,), 1e-3)).n_components == fit(plan, x, labels, 2).n_components == 2


@pytest.mark.parametrize("wrong", [{"family": "diagnal"}, {"family": "tied", "feature_scale": "unity"}])
def test_a_plan_with_a_name_that_is_none_says_so(wrong):
    with pytest.raises(UsageError, match=r"Did you mean '(diagonal|unit)'"):
        Plan(**wrong)


def test_components_without_weight_can_be_taken_alone():
    x, labels = clusters()
    weight = (labels != 1).double()
    mixture = Folds(x, labels, int(labels.max()) + 1, torch.zeros_like(labels), 0, weight).mixture(Plan("tied"))
    assert mixture.of_class(1).log_prob(x).isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_half_precision_get_densities_of_full_precision(family):
    x, labels = clusters()
    mixture = fit(Plan(family), x, labels, int(labels.max()) + 1).to(torch.float32)
    for kind in (torch.float16, torch.bfloat16):
        rows = x.to(kind)
        assert torch.equal(mixture.posterior(rows), mixture.posterior(rows.float()))
        assert mixture.log_prob(rows).dtype == torch.float32


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_score_takes_off_goes_with_tensors_of_any_device(family):
    covariance = FAMILIES[family].initial(3, 4, 2).to("meta")
    assert (torch.zeros(3, device="meta") + covariance.taken_off).device.type == "meta"

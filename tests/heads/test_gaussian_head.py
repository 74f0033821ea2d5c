"""The Gaussian head against dense references, and the acceptance tests of the heads that concern it."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import nn

from mixtura.core.classes import Plan
from mixtura.core.classes import fit as fit_classes
from mixtura.core.covariance import FAMILIES, Prior
from mixtura.core.random_matrix import RANDOM_MATRICES
from mixtura.errors import DataError, NonFinite, UsageError
from mixtura.features.projection import PCA
from mixtura.heads.gaussian import GaussianHead

N_CLASSES = 3


def rows(n=240, d=4, offset=0.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % N_CLASSES
    centers = 2 * torch.randn(N_CLASSES, d, generator=generator, dtype=torch.float64)
    mix = torch.eye(d, dtype=torch.float64) + 0.3 * torch.randn(d, d, generator=generator, dtype=torch.float64)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix + centers[labels] + offset
    return x.to(dtype), labels


def dense_class_joint(head, x):
    """log p(x, c) by SciPy, one component after another."""
    with torch.no_grad():
        mixture = head.mixture()
    covariances = mixture.covariance.dense(mixture.n_components, mixture.dimension).double().numpy()
    log_weight, mean = mixture.log_weight.double().numpy(), mixture.mean.double().numpy()
    parts = [
        log_weight[k] + multivariate_normal(mean[k], covariances[k]).logpdf(x.double().numpy())
        for k in range(mixture.n_components)
    ]
    joint = np.stack(parts, 1)
    component_class = mixture.component_class.numpy()
    return np.stack([logsumexp(joint[:, component_class == c], axis=1) for c in range(head.n_classes)], 1)


@pytest.mark.parametrize("components", [1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_agrees_with_dense_gaussians(family, components):
    x, labels = rows()
    head = GaussianHead.from_rows(x, labels, N_CLASSES, components=components, family=family, rank=2, prior=Prior(5.0))
    expected = dense_class_joint(head, x)
    with torch.no_grad():
        np.testing.assert_allclose(head.class_scores(x).numpy(), expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(head.log_prob(x).numpy(), logsumexp(expected, axis=1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_slopes_are_gradients_at_the_center(family):
    x, labels = rows(offset=5.0)
    head = GaussianHead.from_rows(x, labels, N_CLASSES, components=2, family=family, rank=2, prior=Prior(5.0))
    head.set_temperature(1.7)
    at = head.center.clone().requires_grad_(True)
    for k, slope in enumerate(head.input_gradients()):
        (gradient,) = torch.autograd.grad(head.component_log_prob(at[None])[0, k] / 1.7, at)
        torch.testing.assert_close(slope, gradient * head.scale, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_rows_far_from_zero_lose_nothing(family):
    x, labels = rows(offset=300.0, dtype=torch.float32)
    exact = GaussianHead.from_rows(x.double(), labels, N_CLASSES, family=family, rank=2)
    single = GaussianHead.from_rows(x, labels, N_CLASSES, family=family, rank=2)
    scores = single.class_scores(x).double()
    torch.testing.assert_close(scores, single.double().class_scores(x.double()), rtol=1e-5, atol=1e-3)
    expected = exact.class_scores(x.double())  # of moments whose products are taken in float64, not in float32
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_component_starts_at_the_closed_form_of_the_core(family):
    x, labels = rows()
    head = GaussianHead.from_rows(x, labels, N_CLASSES, family=family, rank=2)
    mixture = fit_classes(Plan(family, rank=2), x, labels, N_CLASSES)
    torch.testing.assert_close(head.class_scores(x), mixture.class_log_prob(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_density_integrates_to_one(family, dimension):
    x, labels = rows(d=dimension)
    head = GaussianHead.from_rows(x, labels, N_CLASSES, components=2, family=family, rank=1, prior=Prior(5.0, 0.1))
    reach = float((x - x.mean(0)).abs().max()) * 2.5
    count = 4001 if dimension == 1 else 601
    axis = torch.linspace(-reach, reach, count, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * dimension).reshape(-1, dimension) + x.mean(0)
    cell = (2 * reach / (count - 1)) ** dimension
    with torch.no_grad():
        total = sum(float(head.log_prob(part).exp().sum()) for part in grid.split(20_000)) * cell
    assert total == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("family", ["spherical", "full", "tied"])
def test_all_axes_of_pca_change_nothing(family):
    x, labels = rows(d=6)
    axes = PCA.fit(x, explained_variance=1.0)
    head = GaussianHead.from_rows(x, labels, N_CLASSES, family=family)
    turned = GaussianHead.from_rows(axes(x), labels, N_CLASSES, family=family)
    # the floor is a millionth of each feature's variance, which a rotation mixes
    torch.testing.assert_close(turned.class_scores(axes(x)), head.class_scores(x), rtol=1e-5, atol=1e-3)


def test_a_truncation_keeps_the_announced_variance():
    x, _ = rows(d=8)
    whole = PCA.fit(x, explained_variance=1.0)
    for explained in (0.3, 0.6, 0.9, 0.99):
        cut = whole.truncate(explained)
        kept = float(cut(x).var(0).sum() / x.var(0).sum())
        one_less = float(cut(x)[:, :-1].var(0).sum() / x.var(0).sum()) if cut.basis.shape[1] > 1 else 0.0
        assert one_less < explained <= kept + 1e-11


def test_the_first_accuracy_is_at_least_that_of_the_nearest_mean():
    x, labels = rows(n=600, d=8, seed=3)
    means = torch.stack([x[labels == c].mean(0) for c in range(N_CLASSES)])
    nearest = (torch.cdist(x, means).argmin(1) == labels).double().mean()
    for family in FAMILIES:
        head = GaussianHead.from_rows(x, labels, N_CLASSES, family=family, rank=2)
        assert (head(x).argmax(1) == labels).double().mean() >= nearest - 0.005, family


def test_on_the_unit_sphere_one_sphere_a_class_is_a_linear_layer():
    x, labels = rows(d=6)
    x = nn.functional.normalize(x)
    head = GaussianHead.from_rows(x, labels, N_CLASSES)
    with torch.no_grad():  # one variance for all classes, as the paper's tied bandwidth
        head.free["log_variance"].fill_(float(head.free["log_variance"].mean()))
    mixture = head.mixture()
    precision = mixture.covariance.variance.reciprocal()[:, None] / head.log_temperature.exp()
    bias = (mixture.log_weight / head.log_temperature.exp()) - 0.5 * (mixture.mean.square() * precision).sum(1)
    linear = nn.Linear(6, N_CLASSES, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(mixture.mean * precision)
        linear.bias.copy_(bias)
    torch.testing.assert_close(head(x), linear(x).log_softmax(1), rtol=1e-9, atol=1e-9)


def test_two_components_beat_one_where_classes_have_two_modes():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(800) % 2
    side = torch.randint(2, (800,), generator=generator) * 2 - 1
    x = torch.randn(800, 2, generator=generator)
    x[torch.arange(800), labels] += 4 * side  # class 0 left and right, class 1 above and below
    held = slice(600, None)
    loss = [
        nn.functional.nll_loss(GaussianHead.from_rows(x[:600], labels[:600], 2, components=g)(x[held]), labels[held])
        for g in (1, 2)
    ]
    assert loss[1].item() < loss[0].item() - 0.2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_give_float32_parameters(dtype):
    x, labels = rows(dtype=torch.float32)
    head = GaussianHead.from_rows(x.to(dtype), labels, N_CLASSES, family="full")
    assert {parameter.dtype for parameter in head.parameters()} == {torch.float32}
    assert head(x.to(dtype)).dtype == torch.float32


def test_autocast_does_not_coarsen_the_scores():
    x, labels = rows(d=32, dtype=torch.float32)
    head = GaussianHead.from_rows(x, labels, N_CLASSES, family="diagonal")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = head(x)
    torch.testing.assert_close(cast, head(x), rtol=0, atol=0)


def test_the_paper_counts_the_same_parameters():
    for components in (1, 2, 3):
        head = GaussianHead(10, N_CLASSES, components)
        paper = N_CLASSES * (components * (10 + 2) + 1) if components > 1 else N_CLASSES * (10 + 2)
        assert head.n_parameters == paper + 1  # the temperature


@pytest.mark.parametrize("part", ["mean", "spread", "weight", "prior", "temperature"])
def test_a_frozen_part_has_no_gradient_and_the_others_have(part):
    x, labels = rows()
    head = GaussianHead.from_rows(x, labels, N_CLASSES, components=2, freeze=(part,))
    nn.functional.nll_loss(head(x), labels).backward()
    without = [name for name, parameter in head.named_parameters() if parameter.grad is None]
    assert (
        without
        == {
            "mean": ["mean"],
            "spread": ["free.log_variance"],
            "weight": ["weight_logit"],
            "prior": ["prior_logit"],
            "temperature": ["log_temperature"],
        }[part]
    )


def test_a_mixture_comes_back_as_it_was_assigned():
    x, labels = rows()
    for family in FAMILIES:
        mixture = fit_classes(Plan(family, components=2, rank=2, prior=Prior(5.0)), x, labels, N_CLASSES)
        counts = torch.bincount(mixture.component_class, minlength=N_CLASSES).tolist()
        head = GaussianHead(4, N_CLASSES, counts, family, rank=2).double()
        head.assign(mixture)
        back = head.mixture()
        for name, value in mixture.state().items():
            torch.testing.assert_close(back.state()[name], value, rtol=1e-8, atol=1e-8, msg=f"{family} {name}")


@pytest.mark.parametrize("family", FAMILIES)
def test_older_states_load(family):
    x, labels = rows()
    head = GaussianHead.from_rows(x, labels, N_CLASSES, components=2, family=family, rank=2)
    state = head.state_dict()
    del state["groups.members"]
    for name in head.free:
        value = state.pop(f"free.{name}")
        inner = "diagonal." if family == "lowrank" and name == "log_variance" else ""
        state[f"spread.{inner}{name}"] = value[0] if family == "tied" else value
    again = GaussianHead(**head.config()).double()
    again.load_state_dict(state, strict=True)
    assert torch.equal(again(x), head(x))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_of_a_density_reaches_every_parameter(family):
    x, labels = rows()
    head = GaussianHead.from_rows(x, labels, N_CLASSES, components=2, family=family, rank=2)
    head.mixture().log_prob(x).sum().backward()
    density = {name: parameter.grad for name, parameter in head.named_parameters() if name != "log_temperature"}
    for name, gradient in density.items():
        assert gradient is not None and gradient.isfinite().all() and gradient.abs().sum() > 0, name
    head.zero_grad()
    head.log_prob(x).sum().backward()
    for name, gradient in density.items():
        torch.testing.assert_close(head.get_parameter(name).grad, gradient, rtol=1e-8, atol=1e-8)
    assert head.mixture().state()["mean"].requires_grad is False


def test_directions_that_a_mixture_lacks_still_learn():
    x, labels = rows()
    mixture = fit_classes(Plan("lowrank", rank=1), x, labels, N_CLASSES)
    head = GaussianHead(4, N_CLASSES, family="lowrank", rank=3).double()
    head.assign(mixture)
    torch.testing.assert_close(head.class_scores(x), mixture.class_log_prob(x), rtol=1e-4, atol=1e-4)
    head.log_prob(x).sum().backward()
    assert (head.free["factor"].grad.abs().sum((0, 1)) > 0).all()
    with pytest.raises(UsageError, match=r"shape of 'factor' is \(3, 4, 3\) in the mixture and \(3, 4, 1\)"):
        with torch.no_grad():
            wider = head.mixture()
        GaussianHead(4, N_CLASSES, family="lowrank", rank=1).double().assign(wider)


def test_unequal_counts_are_normal():
    x, labels = rows()
    head = GaussianHead.from_rows(x, labels, N_CLASSES, components=[1, 3, 2])
    assert head.groups.component_class.tolist() == [0, 1, 1, 1, 2, 2]
    np.testing.assert_allclose(head.class_scores(x).detach().numpy(), dense_class_joint(head, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["pca", *RANDOM_MATRICES])
def test_an_input_projection_is_seeded_saved_and_keeps_lengths(name):
    x, labels = rows(n=900, d=24)
    made = [GaussianHead.from_rows(x, labels, N_CLASSES, projection=name, width=8, seed=5) for _ in range(2)]
    assert torch.equal(made[0](x), made[1](x))
    restored = GaussianHead(**made[0].config()).double()
    restored.load_state_dict(made[0].state_dict(), strict=True)
    assert torch.equal(restored(x), made[0](x))
    if name != "pca":
        seeded = (torch.Generator().manual_seed(seed) for seed in range(200))
        draws = torch.stack([RANDOM_MATRICES[name](24, 8, generator).square().mean() for generator in seeded])
        assert float(draws.mean()) == pytest.approx(1, rel=0.05)
        lengths = made[0].project.square().sum()
        assert float(lengths) == pytest.approx(24, rel=0.4)  # E |xP|^2 = |x|^2


def test_a_square_projection_is_none_at_all():
    x, labels = rows()
    head = GaussianHead.from_rows(x, labels, N_CLASSES, projection="achlioptas", width=4)
    assert head.project is None


def test_bad_input_is_one_sentence():
    x, labels = rows()
    with pytest.raises(UsageError, match=r"no family 'round'\. Known: diagonal"):
        GaussianHead(4, 3, family="round")
    with pytest.raises(UsageError, match="give one number of 1 or more a class"):
        GaussianHead(4, 3, components=0)
    with pytest.raises(UsageError, match="cannot freeze 'means'"):
        GaussianHead(4, 3, freeze=("means",))
    with pytest.raises(UsageError, match="asked to project 4 features to 9"):
        GaussianHead.from_rows(x, labels, N_CLASSES, projection="pca", width=9)
    with pytest.raises(UsageError, match="no input projection 'lda'"):
        GaussianHead.from_rows(x, labels, N_CLASSES, projection="lda", width=2)
    with pytest.raises(NonFinite, match="1 of 240 rows of features hold NaN"):
        GaussianHead.from_rows(x.index_fill(0, torch.tensor([7]), torch.nan), labels, N_CLASSES)
    with pytest.raises(DataError, match="class 3 has 0 of 240 rows"):
        GaussianHead.from_rows(x, labels, 4)
    with pytest.raises(UsageError, match="Set both projection"):
        GaussianHead.from_rows(x, labels, N_CLASSES, width=2)
    with pytest.raises(DataError, match="the number of its class, from 0"):
        GaussianHead.from_rows(x, labels - 1, N_CLASSES)
    diagonal = fit_classes(Plan("diagonal"), x, labels, N_CLASSES)
    with pytest.raises(UsageError, match="A diagonal mixture in 4 dimensions does not fit a spherical head"):
        GaussianHead(4, 3).assign(diagonal)

"""Laws of the projections, with scikit-learn as the oracle."""

import json

import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from sklearn.decomposition import PCA as SkPCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from mixtura.core.classes import Plan
from mixtura.core.covariance import Prior
from mixtura.core.cross_fitting import Folds
from mixtura.errors import BundleError, LabelError, NonFinite, UnknownName, UsageError, WrongDimension
from mixtura.features import PROJECTIONS
from mixtura.features.projected_folds import cross_fit_projection
from mixtura.features.projection import L2, LDA, PCA, Chain, Random, Whiten, restore
from mixtura.names import find


def data(n=300, d=12, c=4, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % c
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64)
    center = torch.randn(c, d, generator=generator, dtype=torch.float64) * 3
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix + center[labels] + 5
    return x.to(dtype), labels


OPTIONS = {"random": {"dimension": 7}, "random_features": {"dimension": 50}, "pca": {"explained_variance": 0.9}}


def fitted(name, x, labels):
    return find(PROJECTIONS, name).fit(x, labels, **OPTIONS.get(name, {}))


@pytest.mark.parametrize("name", PROJECTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_restored_projection_gives_the_same_bits(name, dtype):
    x, labels = data(dtype=dtype)
    projection = fitted(name, x, labels)
    config = json.loads(json.dumps(projection.config()))
    state = {key: tensor.clone() for key, tensor in projection.state().items()}
    again = restore(config, state)
    assert config["name"] == name
    assert torch.equal(again(x), projection(x))
    assert projection(x).dtype == (torch.float32 if name == "random_features" else dtype)  # those are always float32


@pytest.mark.parametrize("name", PROJECTIONS)
def test_rows_are_projected_one_by_one(name):
    x, labels = data()
    projection = fitted(name, x, labels)
    whole = projection(x)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    tolerance = 1e-11 if whole.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(projection(x[order]), whole[order], rtol=0, atol=tolerance)
    torch.testing.assert_close(projection(x[:1]), whole[:1], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["pca", "whiten", "lda"])
def test_fit_sees_no_order_of_rows(name):
    x, labels = data()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(fitted(name, x[order], labels[order])(x), fitted(name, x, labels)(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("n", "d"), [(300, 12), (10, 25)])
def test_pca_equals_scikit_learn(n, d):
    x, _ = data(n, d)
    ours, theirs = PCA.fit(x, explained_variance=1.0), SkPCA(svd_solver="full").fit(x.numpy())
    rank = min(n - 1, d)
    assert ours.basis.shape == (d, rank)
    np.testing.assert_allclose(ours.variance.numpy(), theirs.explained_variance_[:rank], rtol=1e-9)
    signs = np.sign((ours.basis.numpy() * theirs.components_[:rank].T).sum(0))
    np.testing.assert_allclose(ours(x).numpy(), theirs.transform(x.numpy())[:, :rank] * signs, atol=1e-9)


@pytest.mark.parametrize("wanted", [0.005, 0.3, 0.8, 0.99, 1.0])
def test_pca_keeps_the_fewest_axes_that_explain_the_variance(wanted):
    x, _ = data()
    pca = PCA.fit(x, explained_variance=wanted)
    explained = pca.variance.cumsum(0) / pca.variance.sum()
    kept = pca.basis.shape[1]
    assert explained[kept - 1] >= wanted - 1e-11
    assert kept == 1 or explained[kept - 2] < wanted


def test_truncation_is_nested():
    x, _ = data()
    large = PCA.fit(x, explained_variance=0.99)
    for wanted in (0.2, 0.6, 0.95):
        small, direct = large.truncate(wanted), PCA.fit(x, explained_variance=wanted)
        assert torch.equal(small.basis, direct.basis)
        assert torch.equal(small.basis, large.basis[:, : small.basis.shape[1]])
    with pytest.raises(UsageError, match="cannot grow"):
        large.truncate(0.2).truncate(0.99)


def test_pca_counts_the_rank_of_repeated_and_constant_columns():
    x, _ = data(50, 5)
    doubled = torch.cat([x, x, torch.ones(50, 3, dtype=x.dtype)], 1)
    assert PCA.fit(doubled, explained_variance=1.0).basis.shape[1] == 5
    same = torch.ones(6, 4)
    assert torch.equal(PCA.fit(same)(same), torch.zeros(6, 1))
    assert torch.equal(PCA.fit(same[:1])(same[:1]), torch.zeros(1, 1))


@pytest.mark.parametrize("name", ["pca", "whiten", "lda"])
def test_a_large_offset_costs_float32_little(name):
    x, labels = data(dtype=torch.float32)
    x = (x * 64).round() / 64  # exact after the shift too
    moved = fitted(name, x + 1024, labels)(x + 1024)
    torch.testing.assert_close(moved, fitted(name, x, labels)(x), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["whiten", "lda", "l2"])
@pytest.mark.parametrize("scale", [2.0**-60, 2.0**60])
def test_scale_of_the_features_does_not_matter(name, scale):
    x, labels = data()
    torch.testing.assert_close(
        fitted(name, x * scale, labels)(x * scale), fitted(name, x, labels)(x), rtol=1e-9, atol=1e-9
    )


def test_whitened_features_have_unit_covariance():
    x, _ = data()
    z = Whiten.fit(x, eps=0.0)(x)
    torch.testing.assert_close(z.T.cov(), torch.eye(z.shape[1], dtype=z.dtype), rtol=0, atol=1e-9)
    with pytest.raises(UsageError, match="negative"):
        Whiten.fit(x, eps=-1.0)


@pytest.mark.parametrize("power", [0.25, 0.35, 1.0])
def test_whitening_goes_part_of_the_way(power):
    x, _ = data()
    z = Whiten.fit(x, eps=0.0, power=power)(x)
    expected = PCA.fit(x, explained_variance=1.0).variance[: z.shape[1]] ** (1 - power)
    torch.testing.assert_close(z.var(0, unbiased=False), expected.to(z) * (len(x) - 1) / len(x), rtol=1e-6, atol=1e-9)
    for wrong in (0.0, 1.5):
        with pytest.raises(UsageError, match=f"power {wrong}"):
            Whiten.fit(x, power=wrong)


def test_a_whitening_from_before_it_had_a_power_is_whole():
    x, _ = data()
    made = Whiten.fit(x)
    old = {name: value for name, value in made.config().items() if name != "power"}
    torch.testing.assert_close(restore(old, made.state())(x), made(x), rtol=0, atol=0)


def test_lda_equals_scikit_learn():
    x, labels = data()
    ours = LDA.fit(x, labels, shrinkage=0.0)
    oracle = LinearDiscriminantAnalysis(solver="eigen").fit(x.numpy(), labels.numpy())
    theirs = oracle.transform(x.numpy()) - oracle.transform(ours.mean.numpy()[None])
    signs = np.sign((ours.basis.numpy() * oracle.scalings_[:, :3]).sum(0))
    assert ours.basis.shape == (12, 3)
    np.testing.assert_allclose(ours(x).numpy(), theirs * signs, atol=1e-9)


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
def test_lda_solves_the_generalized_eigenproblem(shrinkage):
    x, labels = data(301)  # unequal classes
    ours = LDA.fit(x, labels, shrinkage=shrinkage)
    points, index = x.numpy(), labels.numpy()
    center = np.stack([points[index == c].mean(0) for c in range(4)])
    within = (points - center[index]).T @ (points - center[index]) / len(points)
    spread = center[index] - points.mean(0)
    shrunken = (1 - shrinkage) * within + shrinkage * np.trace(within) / 12 * np.eye(12)
    _, axes = eigh(spread.T @ spread / len(points), shrunken)
    axes = axes[:, ::-1][:, :3]
    signs = np.sign((ours.basis.numpy() * axes).sum(0))
    np.testing.assert_allclose(ours.basis.numpy(), axes * signs, atol=1e-9)


def test_lda_with_more_dimensions_than_rows_and_gaps_in_the_labels():
    x, labels = data(20, 40)
    z = LDA.fit(x, labels * 7 + 3, shrinkage=0.0)(x)
    assert z.shape == (20, 3)
    assert torch.isfinite(z).all()
    assert LDA.fit(x, labels, dimension=2)(x).shape == (20, 2)


def test_lda_needs_two_classes_and_sane_options():
    x, labels = data()
    with pytest.raises(LabelError, match="label for each row"):
        LDA.fit(x)
    with pytest.raises(LabelError, match="two classes"):
        LDA.fit(x, torch.zeros_like(labels))
    for options in ({"shrinkage": 1.5}, {"dimension": 4}, {"dimension": 0}):
        with pytest.raises(UsageError, match="LDA needs"):
            LDA.fit(x, labels, **options)


def test_random_projection_keeps_squared_distances_in_expectation():
    x, _ = data(40, 200)
    z = Random.fit(x, dimension=4000)(x)
    ratio = torch.pdist(z).square() / torch.pdist(x).square()
    assert abs(float(ratio.mean()) - 1) < 0.01
    assert float((ratio - 1).abs().max()) < 0.2
    sign = Random.fit(x, dimension=4000).sign
    assert sign.dtype == torch.int8
    assert abs(float((sign == 0).double().mean()) - 2 / 3) < 0.005
    assert not torch.equal(sign, Random.fit(x, dimension=4000, seed=1).sign)
    with pytest.raises(UsageError, match="dimension and sparsity"):
        Random.fit(x, dimension=0)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_l2_rows_have_length_one(scale):
    x, _ = data()
    x[3] = 0
    length = L2()(x * scale).norm(dim=1)
    assert float(length[3]) == 0
    length[3] = 1
    torch.testing.assert_close(length, torch.ones_like(length), rtol=0, atol=1e-12)


def test_chain_fits_each_step_on_the_step_before():
    x, labels = data(dtype=torch.float32)
    chain = Chain.fit(x, labels, steps=[(L2, {}), (PCA, {"explained_variance": 0.99}), (LDA, {"shrinkage": 0.2})])
    unit = L2()(x)
    pca = PCA.fit(unit, explained_variance=0.99)
    assert torch.equal(chain(x), LDA.fit(pca(unit), labels, shrinkage=0.2)(pca(unit)))
    again = restore(json.loads(json.dumps(chain.config())), chain.state())
    assert torch.equal(again(x), chain(x))
    assert torch.equal(chain.to("cpu")(x), chain(x))
    assert torch.equal(Chain.fit(x)(x), x)


def test_half_precision_and_bytes_are_taken():
    x, _ = data()
    assert PCA.fit(x.half())(x.half()).dtype == torch.float32
    bytes_ = (x - x.min()).clamp(max=255).to(torch.uint8)
    assert PCA.fit(bytes_)(bytes_).dtype == torch.float32


def test_bad_features_are_refused_with_the_rows_named():
    x, labels = data()
    x[[4, 9], 2] = torch.nan
    for name in ("pca", "whiten", "lda"):
        with pytest.raises(NonFinite, match=r"2 of 300 rows .*\[4, 9\]"):
            fitted(name, x, labels)
    with pytest.raises(WrongDimension, match="at least one row"):
        PCA.fit(torch.zeros(0, 3))


@pytest.mark.parametrize("name", ["pca", "whiten", "lda", "random"])
def test_another_width_is_refused(name):
    x, labels = data()
    with pytest.raises(WrongDimension, match="fitted on 12 dimensions, got 11"):
        fitted(name, x, labels)(x[:, :11])


@pytest.mark.parametrize("wanted", [0.0, -1.0, 1.005, 95.0])
def test_an_explained_variance_outside_0_to_1_is_refused(wanted):
    with pytest.raises(UsageError, match=r"fraction above 0 and at most 1, as 0\.95 for 95%"):
        PCA.fit(data()[0], explained_variance=wanted)


def test_a_pca_that_was_stored_in_percent_is_read_as_a_fraction():
    x, _ = data()
    pca = PCA.fit(x, explained_variance=0.9)
    again = restore({"name": "pca", "share": 90.0}, pca.state())
    assert again.config() == pca.config() == {"name": "pca", "explained_variance": 0.9}
    assert torch.equal(again(x), pca(x))


def test_damaged_states_are_refused():
    x, _ = data()
    pca = PCA.fit(x)
    with pytest.raises(BundleError, match="'os:system', which is no part of mixtura"):
        restore({"name": "os:system"}, {})
    with pytest.raises(BundleError, match="Unknown projection"):
        restore({"name": "turn"}, {})
    with pytest.raises(BundleError, match="needs"):
        restore(pca.config(), {"mean": pca.mean})
    chain = Chain((pca,))
    with pytest.raises(BundleError, match="belongs to no step"):
        restore(chain.config(), chain.state() | {"1.mean": pca.mean})
    with pytest.raises(UnknownName):
        find(PROJECTIONS, "pcaa")


def test_no_space_of_cross_fitted_folds_learns_from_rows_of_weight_zero():
    """Weights that come later count as well."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    x = torch.randn(120, 6, generator=generator) + torch.randn(3, 6, generator=generator)[labels]
    far = torch.cat([x, 50 + 50 * torch.rand(30, 6, generator=generator)])
    more, weight = torch.cat([labels, torch.zeros(30).long()]), torch.cat([torch.ones(120), torch.zeros(30)]).double()
    steps = [(PCA, {"explained_variance": 0.7})]
    plan = Plan("tied", prior=Prior(0.0, 0.1))
    fold = torch.arange(150) // 3 % 5
    clean, without = cross_fit_projection(steps, x, Folds(x, labels, 3, fold[:120], 5))
    projection, folds = cross_fit_projection(steps, far, Folds(far, more, 3, fold, 5, weight))
    assert torch.allclose(clean(x), projection(x))
    held, other = without.cross_val_predict(plan), folds.cross_val_predict(plan)
    assert torch.allclose(held.log_prob, other.log_prob[other.weight > 0], atol=1e-3)
    light = weight.clone()
    light[:40] = 0
    again = folds.with_weight(light).cross_val_predict(plan)
    assert (again.weight == light[again.row]).all() and not torch.allclose(again.log_prob, other.log_prob)

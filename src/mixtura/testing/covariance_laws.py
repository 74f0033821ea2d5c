"""Laws of every covariance family.

Inherit from :class:`CovarianceLaws` in a test file, set the family, and pytest collects the laws::

    class TestMyFamily(CovarianceLaws):
        family = MyFamily

Without pytest, ``TestMyFamily().run()`` runs them all. There are no golden numbers: each law is an identity, an
integral, or a comparison with an oracle (torch.distributions, scikit-learn).
"""

import itertools
import threading
import warnings
from dataclasses import replace
from typing import ClassVar

import safetensors.torch
import torch
from jaxtyping import Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from mixtura.core import em
from mixtura.core.covariance import Prior
from mixtura.core.em import Batch, Chunks
from mixtura.core.mixture import Mixture, join
from mixtura.core.moments import class_means, hard, soft
from mixtura.testing.score_laws import ScoreLaws, clusters


def dense(mixture: Mixture) -> Float[Tensor, "K D D"]:
    """Covariance matrix of each component."""
    return mixture.covariance.dense(mixture.n_components, mixture.dimension)


def steps(mixture: Mixture, batches: list[Batch] | Chunks, n: int, floor: float = 0.0) -> Mixture:
    """Mixture after ``n`` EM steps."""
    for _ in range(n):
        mixture, _ = em.step(mixture, batches, floor)
    return mixture


def assert_same(found: Mixture, expected: Mixture, tolerance: float) -> None:
    """Assert that weights, means and covariances agree to ``tolerance``, relative to the largest entry of each."""
    for name in ("log_weight", "mean"):
        one, other = getattr(found, name).double(), getattr(expected, name).double()
        assert_close(one, other, rtol=0, atol=tolerance * max(1.0, float(other.abs().max())))
    one, other = dense(found).double(), dense(expected).double()
    assert_close(one, other, rtol=0, atol=tolerance * float(other.abs().max()))


class Meeting:
    """All-reduce among threads that simulate machines: each gives a tensor, all get the sum."""

    def __init__(self, n_ranks: int) -> None:
        self.gifts: list[Tensor] = []
        self.barrier = threading.Barrier(n_ranks)
        self.lock = threading.Lock()

    def reduce(self, tensor: Tensor) -> Tensor:
        """Sum over all threads; like ``all_reduce``, all threads must call it in the same order."""
        with self.lock:
            self.gifts.append(tensor)
        self.barrier.wait(60)
        total = torch.stack(self.gifts).sum(0)
        if self.barrier.wait(60) == 0:
            self.gifts.clear()
        self.barrier.wait(60)
        return total


class CovarianceLaws(ScoreLaws):
    """Laws of a covariance family; set ``family`` and, if needed, the other attributes.

    ``sklearn_type`` is scikit-learn's name of the same family. ``exact``: one M-step under known labels reaches the
    maximum (false for latent factors, which take several). Override :meth:`project` for a family that keeps less
    than a full matrix, and :meth:`fitted` for one that needs its own initialization.
    """

    sklearn_type: ClassVar[str | None] = None
    exact: ClassVar[bool] = True

    @staticmethod
    def project(matrix: Float[Tensor, "*K D D"]) -> Float[Tensor, "*K D D"]:
        """Project covariance matrices onto the family."""
        return matrix

    def run(self) -> list[str]:
        """Run every law and return their names; the first violated law raises."""
        names = [name for name in dir(self) if name.startswith("test_")]
        for name in names:
            getattr(self, name)()
        return names

    # --- the density -------------------------------------------------------------------------------------------

    def test_log_density_is_torchs(self) -> None:
        """Matrix products give the textbook density."""
        x, labels = clusters()
        mixture = self.fitted(x, labels)
        oracle = MultivariateNormal(mixture.mean, dense(mixture)).log_prob(x[:, None, :])
        assert_close(mixture.component_log_prob(x) - mixture.log_weight, oracle, rtol=1e-10, atol=1e-10)

    def test_density_integrates_to_one(self) -> None:
        """The density integrates to one, in one and two dimensions."""
        for dimension, points in ((1, 4001), (2, 501)):
            x, labels = clusters(200, 3, dimension)
            mixture = self.fitted(x, labels)
            axes = [torch.linspace(float(c.min()) - 8, float(c.max()) + 8, points, dtype=x.dtype) for c in x.T]
            cell = torch.stack([axis[1] - axis[0] for axis in axes]).prod()
            mass = mixture.log_prob(torch.cartesian_prod(*axes).reshape(-1, dimension)).exp().sum() * cell
            assert_close(mass, torch.ones_like(mass), rtol=0, atol=1e-6)

    def test_gradients_are_right(self) -> None:
        """Gradients of ``component_log_prob`` by x, means and every parameter pass ``gradcheck``."""
        x, labels = clusters(40, 3, 3)
        mixture = self.fitted(x, labels)
        names, values = zip(*mixture.covariance.state().items(), strict=True)

        def joint(rows: Tensor, mean: Tensor, *values: Tensor) -> Tensor:
            covariance = self.family.from_state(dict(zip(names, values, strict=True)))
            return Mixture(mixture.log_weight, mean, covariance).component_log_prob(rows)

        inputs = [tensor.clone().requires_grad_() for tensor in (x[:4], mixture.mean, *values)]
        assert torch.autograd.gradcheck(joint, inputs)

    def test_samples_have_the_moments(self) -> None:
        """Means and covariances of 100,000 random samples agree within six standard errors."""
        x, labels = clusters(400, 2, 3)
        mixture = self.fitted(x, labels)
        points, index = mixture.sample(100_000, torch.Generator().manual_seed(1))
        for k in range(2):
            own, matrix = points[index == k], dense(mixture)[k]
            error = 6 * float(matrix.diagonal().max()) / len(own) ** 0.5
            assert_close(own.mean(0), mixture.mean[k], rtol=0, atol=error)
            assert_close(own.T.cov(), matrix, rtol=0, atol=2 * error)
            assert abs(len(own) / len(points) - float(mixture.log_weight[k].exp())) < 0.01

    def test_n_parameters_counts_free_numbers(self) -> None:
        """``n_parameters`` is the rank of the map from parameters to covariance matrices."""
        x, labels = clusters(100, 2, 6)
        covariance = self.fitted(x, labels).covariance
        names, values = zip(*covariance.state().items(), strict=True)

        def matrices(*values: Tensor) -> Tensor:
            return self.family.from_state(dict(zip(names, values, strict=True))).dense(2, 6).flatten()

        jacobian = torch.autograd.functional.jacobian(matrices, values)
        flat = torch.cat([part.flatten(1) for part in jacobian], dim=1)
        assert int(torch.linalg.matrix_rank(flat)) == covariance.n_parameters

    # --- EM ----------------------------------------------------------------------------------------------------

    def test_twenty_steps_are_scikit_learns(self) -> None:
        """EM agrees with scikit-learn to 1e-9 in float64, if scikit-learn has the family."""
        if self.sklearn_type is None:
            return
        x, labels = clusters()
        start = self.fitted(x, torch.randint(5, labels.shape, generator=torch.Generator().manual_seed(3)), 1e-6)
        precision = torch.linalg.inv(dense(start))
        shaped = {"full": precision, "tied": precision[0], "diag": precision.diagonal(dim1=1, dim2=2)}
        shaped["spherical"] = precision[:, 0, 0]
        theirs = GaussianMixture(5, covariance_type=self.sklearn_type, tol=0.0, max_iter=20, reg_covar=1e-6)
        theirs.set_params(weights_init=start.log_weight.exp().numpy(), means_init=start.mean.numpy())
        theirs.set_params(precisions_init=shaped[self.sklearn_type].numpy())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            theirs.fit(x.numpy())
        ours = em.fit(start, Chunks(x), 1e-6, steps=20, tolerance=0.0)
        assert_close(ours.mixture.mean, torch.from_numpy(theirs.means_), rtol=0, atol=1e-9)
        assert_close(ours.mixture.log_weight.exp(), torch.from_numpy(theirs.weights_), rtol=0, atol=1e-9)
        assert_close(ours.mixture.log_prob(x), torch.from_numpy(theirs.score_samples(x.numpy())), rtol=0, atol=1e-8)
        assert abs(ours.trace[-1] - theirs.lower_bound_) < 1e-9

    def test_likelihood_never_falls(self) -> None:
        """The likelihood never falls over forty steps from a poor initialization."""
        x, labels = clusters()
        start = self.fitted(x, torch.randint(5, labels.shape, generator=torch.Generator().manual_seed(4)))
        trace = em.fit(start, Chunks(x), steps=40, tolerance=0.0).trace
        assert all(later >= earlier - 1e-10 for earlier, later in itertools.pairwise(trace)), trace

    def test_batches_make_the_whole(self) -> None:
        """Any split into mini-batches gives the same step."""
        x, labels = clusters()
        start = self.fitted(x, labels)
        assert_same(steps(start, Chunks(x, size=137), 1), steps(start, [Batch(x)], 1), 1e-12)

    def test_ranks_make_the_whole(self) -> None:
        """Three machines with unequal shares of the data, summed by ``reduce``, all get the same mixture."""
        x, labels = clusters()
        start = self.fitted(x, labels)
        shares, meeting, found = x.tensor_split([100, 350]), Meeting(3), dict[int, tuple[Mixture, float]]()

        def work(rank: int) -> None:
            found[rank] = em.step(start, Chunks(shares[rank], size=64), reduce=meeting.reduce)

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        whole, likelihood = em.step(start, [Batch(x)])
        for mixture, part in found.values():
            assert_same(mixture, whole, 1e-12)
            assert abs(part - likelihood) < 1e-12
        assert len(found) == 3

    def test_order_of_components_does_not_matter(self) -> None:
        """EM from a permuted initialization gives the permuted result."""
        x, labels = clusters()
        start, order = self.fitted(x, labels), torch.tensor([3, 0, 4, 1, 2])
        assert_same(steps(start.select(order), Chunks(x), 5), steps(start, Chunks(x), 5).select(order), 1e-10)

    def test_labels_hold_rows_to_their_class(self) -> None:
        """With one component per class, the labels determine all responsibilities."""
        x, labels = clusters()
        start = replace(self.fitted(x, labels), component_class=torch.arange(5), n_classes=5)
        once = steps(start, Chunks(x, labels), 1)
        assert_close(once.mean, class_means(x, labels, 5), rtol=0, atol=1e-12)
        assert_close(once.log_weight.exp() * len(x), torch.bincount(labels).double(), rtol=0, atol=1e-9)

    # --- units -------------------------------------------------------------------------------------------------

    def test_scaling(self) -> None:
        """If x is scaled by a factor, variances scale by its square and log-densities fall by D times its log."""
        x, labels = clusters()
        plain = steps(self.fitted(x, labels, 1e-3), Chunks(x), 3, 1e-3)
        for factor in (1e-20, 1e-4, 1e3, 1e100):
            scaled = self.fitted(x * factor, labels, 1e-3 * factor**2)
            scaled = steps(scaled, Chunks(x * factor), 3, 1e-3 * factor**2)
            assert_close(dense(scaled), dense(plain) * factor**2, rtol=1e-8, atol=1e-8 * factor**2)
            shift = x.shape[1] * torch.tensor(factor, dtype=x.dtype).log()
            assert_close(scaled.log_prob(x * factor), plain.log_prob(x) - shift, rtol=0, atol=1e-8)

    def test_shifting(self) -> None:
        """The origin of x does not matter."""
        x, labels = clusters()
        plain = steps(self.fitted(x, labels), Chunks(x), 3)
        moved = steps(self.fitted(x + 1e4, labels), Chunks(x + 1e4), 3)
        assert_close(dense(moved), dense(plain), rtol=0, atol=1e-7)
        assert_close(moved.log_prob(x + 1e4), plain.log_prob(x), rtol=0, atol=1e-6)

    def test_float32_far_from_zero(self) -> None:
        """At an offset of 10,000 standard deviations, variances agree with float64 to 1e-3."""
        x, labels = clusters()
        single = ((x - x.mean(0)) / x.std(0) + 1e4).float()
        for n in (0, 3):
            found = steps(self.fitted(single, labels), Chunks(single, size=200), n)
            oracle = steps(self.fitted(single.double(), labels), Chunks(single.double()), n)
            variance, expected = (dense(m).double().diagonal(dim1=1, dim2=2) for m in (found, oracle))
            assert_close(variance, expected, rtol=1e-3, atol=0)

    def test_dtype_is_kept(self) -> None:
        """Scores have the dtype of x, and random samples that of the mixture."""
        x, labels = clusters()
        mixture = self.fitted(x, labels)
        for dtype in (torch.float32, torch.float64):
            cast = mixture.to(dtype)
            assert cast.sample(3)[0].dtype == cast.mean.dtype == dtype
            for other in (torch.float32, torch.float64):
                assert mixture.component_log_prob(x.to(other)).dtype == cast.log_prob(x.to(other)).dtype == other
        assert_close(
            mixture.to(torch.float32).component_log_prob(x.float()).double(),
            mixture.component_log_prob(x),
            rtol=1e-4,
            atol=1e-3,
        )

    # --- sums --------------------------------------------------------------------------------------------------

    def test_one_hot_is_class_statistics(self) -> None:
        """Soft moments under one-hot responsibilities equal hard ones, and give class means and covariances."""
        x, labels = clusters()
        mixture = self.fitted(x, labels)
        one_hot = torch.nn.functional.one_hot(labels).double()
        ref, factors = mixture.mean + 0.3, mixture.covariance.factor_posterior()
        soft_sums = soft(self.family, x, one_hot, ref, factors)
        hard_sums = hard(self.family, x, labels, ref, factors=factors)
        for one, other in zip(soft_sums.tensors(), hard_sums.tensors(), strict=True):
            assert_close(one, other, rtol=1e-10, atol=1e-9)
        assert_close(mixture.mean, torch.stack([x[labels == k].mean(0) for k in range(5)]), rtol=0, atol=1e-12)
        if self.exact:
            share = mixture.log_weight.exp()[:, None, None]
            within = torch.stack([x[labels == k].T.cov(correction=0) for k in range(5)])
            assert_close((share * dense(mixture)).sum(0), (share * self.project(within)).sum(0), rtol=1e-10, atol=1e-12)

    def test_adding_then_subtracting_is_a_refit(self) -> None:
        """Moments that were added can be subtracted, even after the reference has moved."""
        x, labels = clusters()
        mixture = self.fitted(x, labels)
        kept, gone = mixture.moments(x[:400], mixture.responsibility(x[:400])), slice(400, None)
        extra = mixture.moments(x[gone], mixture.responsibility(x[gone]))
        moved = (kept + extra).centered() - extra
        assert_same(mixture.update(moved), mixture.update(kept), 1e-9)

    def test_weights_are_repetitions(self) -> None:
        """A sample of weight three equals three copies; a sample of weight zero has no effect."""
        x, labels = clusters(300)
        times = torch.arange(300) % 4
        again, named, weight = x.repeat_interleave(times, 0), labels.repeat_interleave(times), times.double()
        mixture = self.fitted(again, named)
        assert_same(self.fitted(x, labels, weight=weight), mixture, 1e-9)
        assert_same(steps(mixture, [Batch(x, weight=weight)], 1), steps(mixture, [Batch(again)], 1), 1e-10)

    def test_priors_pull_where_they_say(self) -> None:
        """Many pseudo-observations make covariances equal; an identity share of one makes them scaled identities."""
        x, labels = clusters()
        slack = 1e-6 if self.exact else 0.15
        alike = dense(self.fitted(x, labels, prior=Prior(1e9, 0.0)))
        assert_close(alike, alike[:1].expand_as(alike), rtol=0, atol=slack * float(alike.max()))
        found = dense(self.fitted(x, labels, prior=Prior(0.0, 1.0)))
        scale = found.diagonal(dim1=1, dim2=2).mean(1)
        assert_close(found, torch.diag_embed(scale[:, None].expand(-1, 4)), rtol=0, atol=slack * float(scale.max()))

    # --- values ------------------------------------------------------------------------------------------------

    def test_saved_and_loaded_scores_are_equal_bits(self) -> None:
        """The state round-trips through safetensors."""
        x, labels = clusters()
        mixture = self.fitted(x, labels)
        state = safetensors.torch.load(safetensors.torch.save(mixture.state()))
        names = mixture.covariance.state()
        covariance = self.family.from_state({name: state[f"covariance.{name}"] for name in names})
        again = Mixture(state["log_weight"], state["mean"], covariance)
        assert torch.equal(again.component_log_prob(x), mixture.component_log_prob(x))

    def test_background_matches_moments(self) -> None:
        """The background has the mean and covariance of the mixture, projected onto the family."""
        x, labels = clusters()
        mixture = self.fitted(x, labels)
        share, alone = mixture.log_weight.exp(), mixture.background()
        mean = share @ mixture.mean
        apart = mixture.mean - mean
        expected = (share[:, None, None] * (dense(mixture) + apart[:, :, None] * apart[:, None, :])).sum(0)
        assert_close(alone.mean[0], mean, rtol=0, atol=1e-12)
        assert_close(dense(alone)[0], self.project(expected), rtol=1e-10, atol=1e-12)
        assert_close(alone.log_weight.exp(), torch.ones(1, dtype=x.dtype))

    def test_select_takes_columns(self) -> None:
        """Selected components score as before, up to their total weight."""
        x, labels = clusters()
        mixture, index = self.fitted(x, labels), torch.tensor([4, 1])
        chosen = mixture.select(index)
        common = mixture.log_weight[index].logsumexp(0)
        assert_close(chosen.component_log_prob(x) + common, mixture.component_log_prob(x)[:, index], rtol=0, atol=1e-10)

    def test_join_puts_parts_together(self) -> None:
        """Selecting parts of a mixture and joining them by their shares restores it."""
        x, labels = clusters()
        mixture = self.fitted(x, labels)
        parts = [mixture.select(torch.tensor(index)) for index in ([0, 1], [2], [3, 4])]
        share = torch.stack([mixture.log_weight[index].exp().sum() for index in ([0, 1], [2], [3, 4])])
        joined = join(parts, share, [2, 0, 1])
        assert_close(joined.component_log_prob(x), mixture.component_log_prob(x), rtol=0, atol=1e-9)
        assert joined.component_class is not None
        assert joined.component_class.tolist() == [2, 2, 0, 1, 1]
        assert_close(joined.log_prob(x), joined.class_log_prob(x).logsumexp(1), rtol=0, atol=1e-10)

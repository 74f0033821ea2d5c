"""Laws of a covariance family's scores: gradients, precision, and equal results in every execution mode.

Part of :class:`mixtura.testing.covariance_laws.CovarianceLaws`.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import jaxtyping
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.testing import assert_close

from mixtura.core.covariance import NO_PRIOR, Covariance, Prior
from mixtura.core.mixture import Mixture
from mixtura.core.moments import class_means, hard


def clusters(
    n: int = 600, n_components: int = 5, dimension: int = 4, seed: int = 0
) -> tuple[Float[Tensor, "N D"], Int[Tensor, " N"]]:
    """Overlapping clusters of unequal spread, float64, with cluster indices; every cluster has a few samples."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat(
        [torch.arange(n_components).repeat(2 * dimension), torch.randint(n_components, (n,), generator=generator)]
    )[:n]
    center = 2 * torch.randn(n_components, dimension, generator=generator, dtype=torch.float64)
    shape = torch.randn(n_components, dimension, dimension, generator=generator, dtype=torch.float64) / dimension**0.5
    noise = torch.randn(n, dimension, generator=generator, dtype=torch.float64)
    return center[labels] + 0.5 * noise + (noise[:, None, :] @ shape[labels])[:, 0], labels


class Scorer(nn.Module):
    """A family's scores as a module with its operands as buffers."""

    def __init__(self, score: Callable[[tuple[Tensor, ...], Tensor], Tensor], operands: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.score, self.count = score, len(operands)
        for place, operand in enumerate(operands):
            self.register_buffer(f"operand{place}", operand)

    def forward(self, x: Tensor) -> Tensor:
        """Log-densities."""
        return self.score(tuple(self.get_buffer(f"operand{place}") for place in range(self.count)), x)


@contextmanager
def unchecked_shapes() -> Iterator[None]:
    """Disable run-time shape checks, which cannot be traced."""
    checked = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", checked)


class ScoreLaws:
    """Laws of the scores of ``family``."""

    family: ClassVar[type[Covariance]]

    def fitted(
        self,
        x: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        floor: float = 0.0,
        prior: Prior = NO_PRIOR,
        weight: Float[Tensor, " N"] | None = None,
    ) -> Mixture:
        """Closed-form mixture for known labels; override it for a family that needs its own initialization."""
        moments = hard(self.family, x, labels, class_means(x, labels, int(labels.max()) + 1, weight), weight)
        return Mixture.from_moments(moments, floor, prior)

    def anywhere(self, n_components: int, dimension: int) -> Mixture:
        """Unfitted mixture, float64: the initial parameters of a head with small random changes."""
        generator = torch.Generator().manual_seed(7)

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        free = self.family.initial(n_components, dimension, 3).to(torch.float64).unconstrained()
        free = {name: value + 0.3 / dimension**0.5 * noise(*value.shape) for name, value in free.items()}
        log_weight = noise(n_components).log_softmax(0)
        return Mixture(log_weight, noise(n_components, dimension), self.family.constrained(free))

    def test_gradients_are_right_in_many_dimensions(self) -> None:
        """Gradients by x, means and parameters equal central differences to six digits, in random directions."""
        for dimension in (130, 300):
            mixture = self.anywhere(3, dimension)
            generator = torch.Generator().manual_seed(8)
            x = torch.randn(5, dimension, generator=generator, dtype=torch.float64)
            free = mixture.covariance.unconstrained()
            inputs = {"x": x, "mean": mixture.mean, "log_weight": mixture.log_weight, **free}
            steps = {
                name: torch.randn(value.shape, generator=generator, dtype=torch.float64) / value.numel() ** 0.5
                for name, value in inputs.items()
            }

            def evidence(given: dict[str, Tensor]) -> Tensor:
                own = self.family.constrained({name: given[name] for name in free})  # noqa: B023
                return Mixture(given["log_weight"], given["mean"], own).log_prob(given["x"]).sum()

            asked = {name: value.clone().requires_grad_() for name, value in inputs.items()}
            gradients = torch.autograd.grad(evidence(asked), list(asked.values()))
            for (name, value), gradient in zip(inputs.items(), gradients, strict=True):
                ends = [evidence(inputs | {name: value + side * 1e-4 * steps[name]}) for side in (1, -1)]
                slope = (gradient * steps[name]).sum()
                assert_close((ends[0] - ends[1]) / 2e-4, slope, rtol=1e-6, atol=1e-6, msg=f"{name} at D = {dimension}")

    def test_free_parameters_are_the_covariance(self) -> None:
        """Unconstrained parameters round-trip to the same covariance, and cached values do not change its operands."""
        x, labels = clusters()
        for mixture in (self.fitted(x, labels), self.anywhere(3, 4)):
            again = self.family.constrained(mixture.covariance.unconstrained())
            for name, value in mixture.covariance.state().items():
                assert_close(again.state()[name], value, rtol=1e-12, atol=1e-14)
            plain = self.family.from_state(again.state())
            straight = self.family.free_operands(mixture.covariance.unconstrained(), mixture.mean)
            for both in (again.operands(mixture.mean), straight):
                for one, other in zip(both, plain.operands(mixture.mean), strict=True):
                    assert_close(one, other, rtol=1e-10, atol=1e-10)

    def test_scores_are_the_same_however_they_are_run(self) -> None:
        """Tiled, vmapped, exported and compiled scores are equal, for any number of samples."""
        x, labels = clusters()
        mixture = self.fitted(x, labels)
        operands, score = mixture.covariance.operands(mixture.mean), self.family.score
        expected = self.family.score_tiled(operands, x)
        assert_close(score(operands, x), expected, rtol=1e-10, atol=1e-10)
        stacked = tuple(torch.stack([operand, 2 * operand]) for operand in operands)
        both = torch.vmap(score, in_dims=(0, None))(stacked, x)
        assert_close(both[0], expected, rtol=1e-10, atol=1e-10)
        assert_close(both[1], score(tuple(2 * operand for operand in operands), x), rtol=1e-10, atol=1e-10)
        module = Scorer(score, operands)
        with warnings.catch_warnings(), unchecked_shapes():
            warnings.simplefilter("ignore")
            rows = torch.export.Dim("rows")
            program = torch.export.export(module, (x[:9],), dynamic_shapes=({0: rows},)).module()
            torch.compiler.reset()
            compiled = torch.compile(module, backend="eager", dynamic=True)
            for run in (program, compiled):
                for n in (len(x), 5):
                    assert_close(run(x[:n]), expected[:n], rtol=1e-10, atol=1e-10)

    def test_float32_keeps_three_digits_of_far_components(self) -> None:
        """Means at 0, 1 and 10,000 with variance 0.1 are within 1e-3 of float64; ordinary data stays in float32."""
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(150) % 3
        noise = torch.randn(150, 4, generator=generator, dtype=torch.float64) * 0.1**0.5
        for far, precision in ((1e4, torch.float64), (2.0, torch.float32)):
            x = (noise + torch.tensor([0.0, 1.0, far], dtype=torch.float64)[labels, None]).float()
            mixture = self.fitted(x.double(), labels, 1e-4).to(torch.float32)
            exact = mixture.to(torch.float64).component_log_prob(x.double())
            own = exact.gather(1, labels[:, None])
            found = mixture.component_log_prob(x).double()
            assert mixture.operands(torch.float32)[0].dtype == precision
            assert_close(found.gather(1, labels[:, None]), own, rtol=0, atol=1e-3)
            assert_close(mixture.log_prob(x).double(), exact.logsumexp(1), rtol=0, atol=1e-3)

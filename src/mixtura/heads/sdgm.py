"""Sparse discriminative Gaussian mixtures: logistic regression on products of features, with pruned weights."""

import math
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mixtura.core.scale import upcast
from mixtura.errors import UsageError
from mixtura.heads import init
from mixtura.heads.base import Groups, Head
from mixtura.heads.quadratic_map import QUADRATIC_TERMS, QuadraticMap, mapped
from mixtura.names import nearest

PRUNING_THRESHOLD = 3.0  # log of noise variance over squared weight; a dropout rate of 0.95
INITIAL_LOG_ALPHA = -8.0  # initial value: almost no noise, nothing pruned
MIN_INITIAL_WEIGHT = 0.01  # smallest initial weight, for features of unit scale
WEIGHT_EPSILON = 1e-16
KL_SCALE, KL_OFFSET, KL_SLOPE = 0.63576, 1.8732, 1.48695  # of the approximation to the divergence
MAX_BYTES = float(4 << 30)
BATCH_SIZE, TILE_ROWS = 256, 1024


def size(quadratic: str, dimension: int) -> int:
    """Number of features H of the quadratic map, without the constant."""
    return dimension + {"diagonal": dimension, "full": dimension * (dimension + 1) // 2}[quadratic]


def training_bytes(quadratic: str, dimension: int, n_components: int) -> int:
    """Bytes needed for training: float32 weights and variances, gradients, Adam's two moments, a batch of features.

    Args:
        quadratic: a name in :data:`QUADRATIC_TERMS`.
        dimension: D.
        n_components: K over all classes.
    """
    wide = size(quadratic, dimension)
    return 4 * wide * (5 * n_components + 3 * BATCH_SIZE)


@final
class SDGMHead(Head):
    r"""Logistic regression on features and their products, with several components per class and weight pruning.

    .. math:: P(c \mid x) \propto \sum_{k:\,o_k = c} \exp(w_k^\top \phi(x) + b_k)

    Each weight is a Gaussian, :math:`N(w, \sigma^2)`. Training draws new random scores for each sample and
    penalizes the divergence from a scale-free prior (:meth:`penalty`). A weight whose noise variance is twenty times
    its square is pruned: it is zero in ``eval()``. The last component is the reference with zero weights and bias,
    because adding a function to all components changes nothing. Biases are neither noisy nor pruned.

    The quadratic weights may be positive, so the scores are not log-densities.

    Args:
        dimension: D.
        n_classes: C.
        components: components per class, one number for all or one per class.
        quadratic: a name in :data:`QUADRATIC_TERMS`; ``diagonal`` for squares, ``full`` for all products.
        most_bytes: memory limit for training, in bytes.

        Raises:
            UsageError: no such quadratic map, or one that is too large.

    Source: Hayashi and Uchida, A Discriminative Gaussian Mixture Model with Sparsity, ICLR 2021; Molchanov, Ashukha
    and Vetrov, Variational Dropout Sparsifies Deep Neural Networks, ICML 2017.
    """

    name: ClassVar[str] = "sdgm"

    def __init__(
        self,
        dimension: int,
        n_classes: int,
        components: init.Counts = 1,
        quadratic: str = "diagonal",
        most_bytes: float = MAX_BYTES,
    ) -> None:
        super().__init__()
        self.counts = init.components_per_class(components, n_classes)
        _check(quadratic, dimension, sum(self.counts), most_bytes)
        self.dimension, self.n_classes = dimension, n_classes
        self.quadratic, self.most_bytes = quadratic, most_bytes
        self.groups = Groups(init.component_class_of(self.counts), n_classes)
        first, second = QUADRATIC_TERMS[quadratic](dimension)
        n_features = dimension + len(first)
        self.map = QuadraticMap(dimension, n_features)
        self.map.first = torch.cat([torch.arange(dimension), first])
        self.map.second = torch.cat([torch.full((dimension,), dimension), second])
        free = sum(self.counts) - 1
        sign = torch.randint(0, 2, (free, n_features)) * 2.0 - 1
        self.weight = nn.Parameter(MIN_INITIAL_WEIGHT * sign)
        self.log_variance = nn.Parameter(
            torch.full((free, n_features), 2 * math.log(MIN_INITIAL_WEIGHT) + INITIAL_LOG_ALPHA)
        )
        self.bias = nn.Parameter(torch.zeros(free))

    @classmethod
    def from_rows(
        cls,
        x: init.Rows,
        labels: init.Labels,
        n_classes: int,
        *,
        components: init.Counts = 1,
        seed: int = 0,
        quadratic: str = "diagonal",
        most_bytes: float = MAX_BYTES,
    ) -> "SDGMHead":
        """Head initialized by linear discriminant analysis between k-means clusters, with tiny weights on products.

        Args:
            x: training samples.
            labels: the class of each sample.
            n_classes: C.
            components: components per class; at most half the number of its samples.
            seed: for k-means++ and the signs of the small initial weights.
            quadratic: ``diagonal`` for squares, ``full`` for all products.
            most_bytes: memory limit for training, in bytes.

        Raises:
            UsageError: an invalid option, or a map that is too large.
        """
        rows, labels = init.checked(x, labels, n_classes)
        _check(quadratic, rows.shape[1], sum(init.components_per_class(components, n_classes)), most_bytes)
        mixture, counts = init.clusters(rows, labels, n_classes, components, seed)
        head = cls(rows.shape[1], n_classes, counts, quadratic, most_bytes).to(rows.device, rows.dtype)
        head.map.fit(rows)
        own, width = init.assign_hard(mixture, rows, labels), rows.shape[1]
        standard = (rows - head.map.center) * head.map.gain
        weight, bias = init.lda_weights(standard, own, sum(counts))
        bias = bias + weight @ head.map.offset[:width].double()  # the map takes their means off the features
        draw = torch.randint(0, 2, head.weight.shape, generator=torch.Generator().manual_seed(seed)) * 2.0 - 1
        with torch.no_grad():
            start = MIN_INITIAL_WEIGHT * draw.to(head.weight)
            linear = (weight[:-1] - weight[-1]).to(start)
            start[:, :width] = torch.where(linear.abs() > MIN_INITIAL_WEIGHT, linear, start[:, :width])
            head.weight.copy_(start)
            head.log_variance.copy_(2 * start.abs().log() + INITIAL_LOG_ALPHA)
            head.bias.copy_(bias[:-1] - bias[-1])
        head.eval().set_temperature(init.fit_temperature(head.class_scores, rows, labels))
        return head.train()

    @torch.no_grad()
    def set_temperature(self, degrees: float) -> None:
        """Calibrate by dividing the scores by a temperature."""
        self.weight.div_(degrees)
        self.bias.div_(degrees)
        self.log_variance.sub_(2 * math.log(degrees))

    def join(self) -> None:
        """Give all features together the length that D of them have, and the weights the inverse; scores stay.

        With hundreds of products, a step along the weights would change the scores hundreds of times as much.
        """
        shorter = (self.map.scale.numel() / self.dimension) ** 0.5
        self.map.scale.div_(shorter)
        self.weight.mul_(shorter)
        self.log_variance.add_(2 * math.log(shorter))

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values; they rebuild the head before its state is loaded."""
        return {
            "dimension": self.dimension,
            "n_classes": self.n_classes,
            "components": self.counts,
            "quadratic": self.quadratic,
            "most_bytes": self.most_bytes,
        }

    def log_alpha(self) -> Float[Tensor, "J H"]:
        r"""Log noise ratio of each weight, :math:`\log\alpha = \log\sigma^2 - \log w^2`; above 3 it is pruned."""
        return upcast(self.log_variance) - (upcast(self.weight).square() + WEIGHT_EPSILON).log()

    def kept(self) -> Tensor:
        """Mask of the weights that are not pruned."""
        return self.log_alpha() < PRUNING_THRESHOLD

    def component_scores(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N K"]:
        """Component logits; in training mode, with the noise of the weights."""
        phi = mapped(self, self.map, x)
        weight, bias = self.weight.to(phi.dtype), self.bias.to(phi.dtype)
        if self.training:
            mean = nn.functional.linear(phi, weight, bias)
            variance = nn.functional.linear(phi.square(), self.log_variance.to(phi.dtype).exp())
            scores = mean + (variance + WEIGHT_EPSILON).sqrt() * torch.randn(
                mean.shape, dtype=mean.dtype, device=mean.device
            )
        else:
            scores = nn.functional.linear(phi, torch.where(self.kept(), weight, 0.0), bias)
        return nn.functional.pad(scores, (0, 1))

    def class_scores(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C"]:
        """Class logits, which are not densities."""
        return self.groups(self.component_scores(x))

    def cancellation(self) -> Float[Tensor, " J"]:
        """Twice the biases."""
        return 2 * upcast(self.bias).abs()

    def penalty(self) -> Float[Tensor, ""]:
        r"""KL divergence of all weights from the scale-free prior, in nats; a mean loss over N samples adds 1/N of it.

        .. math:: \sum k_1 - k_1 \operatorname{sigmoid}(k_2 + k_3 \log\alpha) + \tfrac12 \log(1 + 1 / \alpha)

        Source: Molchanov, Ashukha and Vetrov, ICML 2017, equation 14.
        """
        log_alpha = self.log_alpha()
        certain = KL_SCALE * (1 - (KL_OFFSET + KL_SLOPE * log_alpha).sigmoid())
        return (certain + 0.5 * nn.functional.softplus(-log_alpha)).sum()

    @property
    def n_parameters(self) -> int:
        """Number of unpruned weights and biases."""
        return int(self.kept().sum()) + self.bias.numel()

    @property
    def sparsity(self) -> float:
        """Share of the weights that are pruned, 0 to 1."""
        return 1 - float(self.kept().double().mean()) if self.weight.numel() else 0.0

    @torch.no_grad()
    def compressed(self, x: Float[Tensor, "N D"] | None = None, least: float = 1e-5) -> "CompactSDGMHead":
        """Compact head with the same predictions, made of the unpruned weights; call it after training.

        Args:
            x: samples used to find unused components; without them, all components are kept.
            least: mean responsibility below which a component is dropped; each class keeps its most used one.
        """
        n_components = len(self.groups.component_class)
        used = torch.ones(n_components, dtype=torch.bool, device=self.weight.device)
        if x is not None:
            used = self._used(x, least)
        weight = nn.functional.pad(torch.where(self.kept(), self.weight, 0.0), (0, 0, 0, 1))[used]
        bias = nn.functional.pad(self.bias, (0, 1))[used]
        columns = (weight != 0).any(0).nonzero()[:, 0]
        narrow = weight[:, columns]
        place = (narrow.reshape(-1) != 0).nonzero()[:, 0]
        component_class = self.groups.component_class[used].tolist()
        counts = [component_class.count(c) for c in range(self.n_classes)]
        compact = CompactSDGMHead(self.dimension, self.n_classes, counts, len(columns), len(place))
        compact.to(self.weight.device, self.weight.dtype)
        compact.map.take(self.map, columns)
        compact.place.copy_(place)
        compact.value.copy_(narrow.reshape(-1)[place])
        compact.bias.copy_(bias[:-1] - bias[-1])
        return compact.eval()

    def _used(self, x: Float[Tensor, "N D"], least: float) -> Tensor:
        was = self.training
        self.eval()
        share = torch.cat([self.component_scores(part).softmax(1) for part in x.split(TILE_ROWS)]).mean(0)
        self.train(was)
        best = nn.functional.pad(share, (0, 1), value=-1.0)[self.groups.members].argmax(1)
        used = share >= least
        used[self.groups.members.gather(1, best[:, None])[:, 0]] = True
        return used


@final
class CompactSDGMHead(Head):
    """SDGM head after pruning, reduced to the unpruned weights, their features and the components in use.

    Args:
        dimension: D.
        n_classes: C.
        components: components of each class.
        n_features: features with unpruned weights.
        n_weights: unpruned weights.
    """

    name: ClassVar[str] = "sdgm_compact"
    place: Tensor

    def __init__(
        self, dimension: int, n_classes: int, components: init.Counts, n_features: int, n_weights: int
    ) -> None:
        super().__init__()
        self.counts = init.components_per_class(components, n_classes)
        self.dimension, self.n_classes = dimension, n_classes
        self.n_features, self.n_weights = n_features, n_weights
        self.groups = Groups(init.component_class_of(self.counts), n_classes)
        self.map = QuadraticMap(dimension, n_features)
        self.value = nn.Parameter(torch.zeros(n_weights))
        self.bias = nn.Parameter(torch.zeros(sum(self.counts) - 1))
        self.register_buffer("place", torch.zeros(n_weights, dtype=torch.int64))

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values; they rebuild the head before its state is loaded."""
        return {
            "dimension": self.dimension,
            "n_classes": self.n_classes,
            "components": self.counts,
            "n_features": self.n_features,
            "n_weights": self.n_weights,
        }

    def component_scores(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N K"]:
        """Component logits."""
        n_components = sum(self.counts)
        phi = mapped(self, self.map, x)
        value = self.value.to(phi.dtype)
        weight = value.new_zeros(n_components * self.n_features).scatter(0, self.place, value)
        weight = weight.reshape(n_components, self.n_features)
        return nn.functional.linear(phi, weight, nn.functional.pad(self.bias.to(phi.dtype), (0, 1)))

    def class_scores(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C"]:
        """Class logits, which are not densities."""
        return self.groups(self.component_scores(x))

    def cancellation(self) -> Float[Tensor, " J"]:
        """Twice the biases."""
        return 2 * upcast(self.bias).abs()


def _check(quadratic: str, dimension: int, n_components: int, most_bytes: float) -> None:
    if quadratic not in QUADRATIC_TERMS:
        raise UsageError(f"An SDGM head has no quadratic map {quadratic!r}. {nearest(quadratic, QUADRATIC_TERMS)}")
    wanted = training_bytes(quadratic, dimension, n_components)
    if wanted > most_bytes:
        raise UsageError(
            f"Training an SDGM head with {n_components} components and {size(quadratic, dimension):,} features each "
            f"takes about {wanted:,} bytes, above the limit of {most_bytes:,.0f}. Project the features to fewer "
            "dimensions first (a smaller PCA share), use the diagonal map or fewer components, or raise most_bytes."
        )

r"""Subclasses between embeddings and classes: a density on the unit sphere, of which only the class is observed.

A class :math:`y` draws a subclass :math:`z`, and the subclass an embedding :math:`v`, both by the distance of unit
vectors: subclass means :math:`m_z` to class means :math:`M_y`, and embeddings to subclass means. Means of any length
are scaled to unit length, so a gradient step cannot leave the sphere.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from mixtura.core.two_levels import superclass_table


@dataclass(frozen=True)
class SubclassModel:
    r"""Subclass and class means with their variances.

    .. math:: \pi_z(y) = \operatorname{softmax}_z (m_z \cdot M_y / \bar s^2), \qquad
        p(y \mid z) = \operatorname{softmax}_y (m_z \cdot M_y / \bar s^2 + \log p(y))

    Args:
        mean: of each subclass.
        class_mean: of each class.
        variance: :math:`s^2`, of embeddings about the mean of their subclass, above 0.
        class_variance: :math:`\bar s^2`, of subclass means about that of their class, above 0.
        log_prior: :math:`\log p(y)`, in nats; ``None`` for equal classes.
        mixture_prior: whether :math:`\pi_z(y)` is part of :math:`p(z \mid v, y)`, as the model has it; without it,
            subclasses are equally frequent, whatever the class.

    Source: Ni et al., Superclass-Conditional Gaussian Mixture Model for Learning Fine-Grained Embeddings, ICLR 2022,
    equations 1 to 6.
    """

    mean: Float[Tensor, "R D"]
    class_mean: Float[Tensor, "C D"]
    variance: float = 0.1
    class_variance: float = 1.0
    log_prior: Float[Tensor, " C"] | None = None
    mixture_prior: bool = False

    def superclass_table(self) -> Float[Tensor, "C R"]:
        """What a score has of classes and subclasses alone, for an assignment of embeddings to subclasses."""
        return superclass_table(self.mean, self.class_mean, self.class_variance, self.log_prior, self.mixture_prior)

    def class_given_subclass(self) -> Float[Tensor, "R C"]:
        """:math:`\\log p(y \\mid z)`, in nats."""
        return superclass_table(self.mean, self.class_mean, self.class_variance, self.log_prior).T

    def subclass_given_class(self) -> Float[Tensor, "C R"]:
        """:math:`\\log \\pi_z(y)`, in nats."""
        return (_unit(self.class_mean) @ _unit(self.mean).T / self.class_variance).log_softmax(1)

    def similarity(self, v: Float[Tensor, "N D"]) -> Float[Tensor, "N R"]:
        """:math:`v \\cdot m_z / s^2` of embeddings that are scaled to unit length here."""
        return _unit(v) @ _unit(self.mean).T / self.variance

    def angular_similarity(self, v: Float[Tensor, "N D"], labels: Int[Tensor, " N"]) -> Float[Tensor, "N R"]:
        r"""Cosine of :math:`v - M_y` and :math:`m_z - M_y` over :math:`s^2`, without a tensor of N R D.

        .. math:: \frac{v \cdot m - v \cdot M - m \cdot M + 1}{\lvert v - M \rvert \lvert m - M \rvert}, \qquad
            \lvert v - M \rvert^2 = 2 - 2\, v \cdot M
        """
        v, mean, center = _unit(v), _unit(self.mean), _unit(self.class_mean)
        to_center = (v * center[labels]).sum(1, keepdim=True)
        mean_to_center = (mean @ center.T).T[labels]
        least = torch.finfo(v.dtype).eps  # an embedding on the class mean has no direction from it
        lengths = ((2 - 2 * to_center).clamp_min(least) * (2 - 2 * mean_to_center).clamp_min(least)).sqrt()
        return (v @ mean.T - to_center - mean_to_center + 1) / lengths / self.variance

    def subclass_posterior(
        self, v: Float[Tensor, "N D"], labels: Int[Tensor, " N"], angular: bool = False
    ) -> Float[Tensor, "N R"]:
        """:math:`\\log p(z \\mid v)`, or :math:`\\log p(z \\mid v, y)` with ``mixture_prior``, in nats.

        Args:
            v: embeddings.
            labels: class of each.
            angular: whether to compare directions as seen from the class mean.
        """
        found = self.angular_similarity(v, labels) if angular else self.similarity(v)
        return (found + self.subclass_given_class()[labels] if self.mixture_prior else found).log_softmax(1)

    def score(self, v: Float[Tensor, "N D"], labels: Int[Tensor, " N"]) -> Float[Tensor, "N R"]:
        """:math:`\\log p(z \\mid v) + \\log p(y \\mid z)`, in nats: how well each subclass explains a row."""
        return self.subclass_posterior(v, labels) + self.class_given_subclass().T[labels]

    def class_posterior(self, v: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        r"""Log-probability of each class through the subclasses, in nats.

        .. math:: \log \sum_z p(z \mid v)\, p(y \mid z), \quad \text{with mixture_prior} \quad
            \log p(y) \sum_z \pi_z(y) e^{v \cdot m_z / s^2} + \text{const}
        """
        near = self.similarity(v)
        table = self.subclass_given_class().T if self.mixture_prior else self.class_given_subclass()
        joint = (near.softmax(1) @ table.exp()).clamp_min(torch.finfo(near.dtype).tiny).log()
        if self.mixture_prior and self.log_prior is not None:
            joint = joint + self.log_prior
        return joint.log_softmax(1)


def _unit(x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
    return functional.normalize(x, dim=-1)

import pytest
import torch


@pytest.fixture
def untempered():
    """A function that gives scores the temperature at which they are nearest to others, rows about their mean."""

    def scale(scores, rival):
        ours, theirs = (part.detach() - part.detach().mean(1, keepdim=True) for part in (scores, rival))
        return ours * (theirs.square().sum() / (ours * theirs).sum()), theirs

    return scale


@pytest.fixture
def blobs():
    """A function that draws labeled rows: classes about random means, some with several modes."""

    def draw(n=300, n_classes=4, dimension=6, modes=1, apart=3.0, seed=0, dtype=torch.float32):
        generator = torch.Generator().manual_seed(seed)
        means = torch.randn(n_classes * modes, dimension, generator=generator, dtype=torch.float64)
        means = apart * means / means.norm(dim=1, keepdim=True)
        part = torch.arange(n) % (n_classes * modes)
        noise = torch.randn(n, dimension, generator=generator, dtype=torch.float64)
        return (means[part] + 0.5 * noise).to(dtype), part % n_classes

    return draw

"""One pass for the tied family gives what two passes give."""

import pytest
import torch

from mixtura.core.covariance import Diagonal, Tied
from mixtura.core.moments import class_means, hard, labeled


def pooled(x, labels, n_classes, weight=None):
    return labeled(Tied, x, labels, n_classes, weight)[0].centered()


def rows(n=5000, d=19, c=7, dtype=torch.float64, apart=1.0):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(c - 1, (n,), generator=generator)  # the last class has no rows
    centers = apart * torch.randn(c, d, generator=generator, dtype=torch.float64)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) + centers[labels]
    return x.to(dtype), labels, torch.rand(n, generator=generator, dtype=torch.float64) + 0.1


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("d", [1, 3, 19, 64])
def test_one_pass_equals_two(d, weighted):
    x, labels, weight = rows(d=d)
    given = weight if weighted else None
    one, two = pooled(x, labels, 7, given), hard(Tied, x, labels, class_means(x, labels, 7, given), given).centered()
    torch.testing.assert_close(one.weight, two.weight, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(one.mean()[:6], two.mean()[:6], rtol=0, atol=1e-12)
    torch.testing.assert_close(one.second, two.second, rtol=1e-11, atol=1e-9)
    assert torch.equal(one.second, one.second.mT)


def test_parts_add_up_to_the_whole():
    x, labels, weight = rows()
    whole = pooled(x, labels, 7, weight)
    parts = [pooled(x[s], labels[s], 7, weight[s]) for s in (slice(0, 1), slice(1, 900), slice(900, None))]
    total = (parts[0] + parts[1] + parts[2]).centered()
    torch.testing.assert_close(total.second, whole.second, rtol=1e-11, atol=1e-9)
    torch.testing.assert_close(total.mean()[:6], whole.mean()[:6], rtol=0, atol=1e-12)


@pytest.mark.parametrize("apart", [1.0, 1e3])
@pytest.mark.parametrize("offset", [0.0, 2.0**13])
def test_float32_keeps_its_digits(apart, offset):
    x, labels, _ = rows(dtype=torch.float32, apart=apart)
    x = x + offset
    exact = pooled(x.double(), labels, 7)
    close = pooled(x, labels, 7).centered()
    scale = exact.second.diagonal(dim1=1, dim2=2).mean()
    torch.testing.assert_close(close.second / scale, exact.second / scale, rtol=0, atol=1e-3)
    torch.testing.assert_close(close.mean()[:6], exact.mean()[:6], rtol=1e-6, atol=1e-3)


def test_no_rows_give_no_weight():
    empty = pooled(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), 2)
    assert float(empty.weight.sum()) == 0


def test_a_million_float32_rows_of_one_class_keep_their_mean_and_variance():
    """One by one, a float32 sum of squares would stop at 2^24 times a row; the first row lies off."""
    x = torch.randn(1_500_000, 2, generator=torch.Generator().manual_seed(0))
    x[0] = 30.0
    labels = torch.zeros(len(x), dtype=torch.long)
    assert torch.allclose(class_means(x, labels, 1)[0], x.double().mean(0), atol=1e-4)
    (sums,) = labeled(Diagonal, x, labels, 1)
    assert torch.allclose(sums.centered_variances()[0] / len(x), x.double().var(0, correction=0), rtol=1e-5)

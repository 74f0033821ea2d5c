import pytest
import torch

from mixtura.core import linalg
from mixtura.errors import CollapsedComponent


def positive(n, d):
    root = torch.randn(n, d, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return root @ root.mT + 0.1 * torch.eye(d, dtype=torch.float64)


def test_factors_inverses_and_determinants_agree():
    matrix = positive(3, 5)
    tril = linalg.cholesky(matrix)
    torch.testing.assert_close(tril @ tril.mT, matrix, rtol=0, atol=1e-12)
    inverse = linalg.inverse_tril(tril)
    torch.testing.assert_close(inverse @ tril, torch.eye(5, dtype=matrix.dtype).expand(3, 5, 5), rtol=0, atol=1e-12)
    torch.testing.assert_close(2 * linalg.half_log_det(tril), matrix.logdet(), rtol=0, atol=1e-12)
    right = matrix[:, :, :2]
    torch.testing.assert_close(matrix @ linalg.solve_spd(matrix, right), right, rtol=0, atol=1e-11)


def test_the_first_bad_component_is_named():
    matrix = positive(4, 3)
    matrix[2, 1, 1] = -1.0
    with pytest.raises(CollapsedComponent, match="component 2 is not positive definite in 3 dimensions"):
        linalg.cholesky(matrix)


def test_eigenvalues_come_from_large_to_small():
    matrix = positive(2, 4)
    values, vectors = linalg.eigh(matrix)
    assert (values.diff(dim=1) <= 0).all()
    torch.testing.assert_close(vectors * values[:, None, :] @ vectors.mT, matrix, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(40, 6), (6, 40), (5, 5), (1, 8), (8, 1)])
def test_the_largest_singular_values_of_tall_and_wide(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values, basis = linalg.svd_right(x, 3)
    rank = min(3, *shape)
    torch.testing.assert_close(values, torch.linalg.svdvals(x)[:rank], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(basis.T @ basis, torch.eye(rank, dtype=x.dtype), rtol=0, atol=1e-8)
    torch.testing.assert_close((x @ basis).norm(dim=0), values, rtol=1e-8, atol=1e-8)


def test_missing_directions_are_zero():
    values, basis = linalg.svd_right(torch.ones(3, 9, dtype=torch.float64), 3)
    torch.testing.assert_close(values[1:], torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-6)
    assert basis.isfinite().all()


@pytest.mark.parametrize("shape", [(5,), (128,), (129,), (2, 301), (1, 517)])
def test_triangles_by_halves_are_those_of_one_piece(shape):
    *batch, size = shape
    generator = torch.Generator().manual_seed(size)
    square = torch.randn(*batch, size, size, generator=generator, dtype=torch.float64)
    tril = linalg.cholesky(square @ square.mT / size + torch.eye(size, dtype=torch.float64))
    eye = torch.eye(size, dtype=torch.float64).expand_as(tril)
    inverse = linalg.inverse_tril(tril)
    torch.testing.assert_close(inverse @ tril, eye, rtol=0, atol=1e-12)
    assert torch.equal(inverse, inverse.tril())
    torch.testing.assert_close(linalg.gram_tril(tril), tril @ tril.mT, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(linalg.matmul_tril(tril, inverse), tril @ inverse, rtol=0, atol=1e-12)

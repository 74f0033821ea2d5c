"""Dense linear algebra, in float64 unless it says otherwise: the only caller of ``torch.linalg`` in mixtura."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch.linalg carries no types; the signatures below supply them

import torch
from jaxtyping import Float
from torch import Tensor

from mixtura.errors import CollapsedComponent

BLOCK_ROWS = 128  # rows of a triangle that is not halved any more
AT_ONCE = 1 << 22  # numbers of triangles that are inverted together


def cholesky(matrix: Float[Tensor, "*B D D"]) -> Float[Tensor, "*B D D"]:
    r"""Lower Cholesky factor ``L`` with ``L L' = matrix`` and positive diagonal, in float64.

    There is no jitter and no retry: covariances are positive definite by construction, so a failure is an error.

    Raises:
        CollapsedComponent: a matrix is not positive definite; the message names the component.
    """
    factor, info = torch.linalg.cholesky_ex(matrix.double())
    if bool((info != 0).any()):
        worst = int(info.reshape(-1).ne(0).nonzero()[0, 0])
        raise CollapsedComponent(
            f"The covariance of component {worst} is not positive definite in {matrix.shape[-1]} dimensions. "
            "Use a larger floor, a prior with more strength, or a diagonal family."
        )
    return factor


def inverse_tril(tril: Float[Tensor, "*B D D"]) -> Float[Tensor, "*B D D"]:
    """Inverse of a lower triangular matrix, in float64; by halves, since a solver would not spare the zeros."""
    tril = tril.double()
    size = tril.shape[-1]
    if size <= BLOCK_ROWS:
        eye = torch.eye(size, dtype=tril.dtype, device=tril.device).expand_as(tril)
        return torch.linalg.solve_triangular(tril, eye, upper=False)
    half = size // 2
    top, last = inverse_tril(tril[..., :half, :half]), inverse_tril(tril[..., half:, half:])
    low = -last @ (tril[..., half:, :half] @ top)
    return _joined(top, low, torch.zeros_like(low).mT, last)


def gram_tril(tril: Float[Tensor, "*B D D"]) -> Float[Tensor, "*B D D"]:
    """``L L'`` of a lower triangular matrix, in its own precision; by halves, which spares the zeros."""
    size = tril.shape[-1]
    if size <= BLOCK_ROWS:
        return tril @ tril.mT
    half = size // 2
    top, low, last = tril[..., :half, :half], tril[..., half:, :half], tril[..., half:, half:]
    side = low @ top.mT
    return _joined(gram_tril(top), side, side.mT, low @ low.mT + gram_tril(last))


def matmul_tril(left: Float[Tensor, "*B D D"], right: Float[Tensor, "*B D D"]) -> Float[Tensor, "*B D D"]:
    """The product of two lower triangular matrices; by halves, which spares the zeros."""
    size = left.shape[-1]
    if size <= BLOCK_ROWS:
        return left @ right
    half = size // 2
    (a, _, b, c), (d, _, e, f) = (_quarters(matrix, half) for matrix in (left, right))
    low = b @ d + c @ e
    return _joined(matmul_tril(a, d), low, torch.zeros_like(low).mT, matmul_tril(c, f))


def _quarters(matrix: Float[Tensor, "*B D D"], half: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four blocks, row by row."""
    top, bottom = matrix[..., :half, :], matrix[..., half:, :]
    return top[..., :half], top[..., half:], bottom[..., :half], bottom[..., half:]


def _joined(top: Tensor, low: Tensor, right: Tensor, last: Tensor) -> Float[Tensor, "*B D D"]:
    """A matrix of four blocks; out of place, so that it has a gradient."""
    return torch.cat([torch.cat([top, right], -1), torch.cat([low, last], -1)], -2)


def precision_tril(covariance: Float[Tensor, "*B D D"]) -> Float[Tensor, "*B D D"]:
    r"""Lower triangular W with :math:`W^\top W = \Sigma^{-1}` and a positive diagonal, in float64: it whitens.

    It is the inverse of the Cholesky factor.

    Raises:
        CollapsedComponent: a matrix is not positive definite.
    """
    factor = cholesky(covariance)
    if factor.requires_grad:
        return inverse_tril(factor)
    size = factor.shape[-1]
    out = torch.empty(factor.shape, dtype=factor.dtype, device=factor.device)  # row by row, as what is loaded lies
    step = max(1, AT_ONCE // size**2)
    parts = (flat.view(-1, size, size).split(step) for flat in (factor, out))
    for tril, inverse in zip(*parts, strict=True):
        inverse.copy_(inverse_tril(tril))
    return out


def covariance_of(precision_tril: Float[Tensor, "*B D D"]) -> Float[Tensor, "*B D D"]:
    """The covariance matrices whose precisions have the lower factors ``precision_tril``, in float64."""
    return gram_tril(inverse_tril(precision_tril))


def solve_rows(tril: Float[Tensor, "D D"], rows: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """``inverse(tril)`` times each row, in the precision of the rows."""
    return torch.linalg.solve_triangular(tril, rows.T, upper=False).T


def half_log_det(tril: Float[Tensor, "*B D D"]) -> Float[Tensor, "*B"]:
    """Log-determinant of a triangular matrix with a positive diagonal, in nats."""
    return log_diagonal(tril).sum(-1)


def log_diagonal(tril: Float[Tensor, "*B D D"]) -> Float[Tensor, "*B D"]:
    """Logarithms of the diagonal of a triangular matrix, where it is positive."""
    return tril.diagonal(dim1=-2, dim2=-1).log()


def tril_of(log_diagonal: Float[Tensor, "*B D"], lower: Float[Tensor, "*B D D"]) -> Float[Tensor, "*B D D"]:
    """A lower triangular matrix with a positive diagonal, from numbers that may take any value."""
    return lower.tril(-1) + torch.diag_embed(log_diagonal.exp())


def free_tril(tril: Float[Tensor, "*B D D"]) -> dict[str, Tensor]:
    """The inverse of :func:`tril_of`."""
    return {"log_diagonal": log_diagonal(tril), "lower": tril.tril(-1)}


def eigh(matrix: Float[Tensor, "*B D D"]) -> tuple[Float[Tensor, "*B D"], Float[Tensor, "*B D D"]]:
    """Eigenvalues from large to small, and their eigenvectors as columns, in float64."""
    values, vectors = torch.linalg.eigh(matrix.double())
    return values.flip(-1), vectors.flip(-1)


def solve_spd(matrix: Float[Tensor, "*B R R"], right: Float[Tensor, "*B R M"]) -> Float[Tensor, "*B R M"]:
    """Solution of ``matrix @ y = right`` for a positive definite matrix, in float64."""
    return torch.cholesky_solve(right.double(), cholesky(matrix))


def squared_norms(rows: Float[Tensor, "*N D"]) -> Float[Tensor, "*N"]:
    """Squared length of each row, in the precision of the rows and without a copy of them."""
    return torch.linalg.vector_norm(rows, dim=-1).square()


def svd_right(x: Float[Tensor, "N D"], rank: int) -> tuple[Float[Tensor, " R"], Float[Tensor, "D R"]]:
    """The ``rank`` largest singular values of ``x`` and their right singular vectors, in float64.

    Works on the smaller of the two Gram matrices, so a wide ``x`` with few rows costs N N D only.
    """
    rows = x.double()
    n, d = rows.shape
    rank = min(rank, n, d)
    if d <= n:
        values, vectors = eigh(rows.T @ rows)
        return values[:rank].clamp_min(0).sqrt(), vectors[:, :rank]
    values, left = eigh(rows @ rows.T)
    singular = values[:rank].clamp_min(0).sqrt()
    tiny = singular[:1] * torch.finfo(singular.dtype).eps * max(n, d)
    return singular, (rows.T @ left[:, :rank]) / singular.clamp_min(tiny.clamp_min(torch.finfo(torch.float64).tiny))


def cholesky_of_definite(matrix: Float[Tensor, "*B R R"]) -> Float[Tensor, "*B R R"]:
    """Lower Cholesky factor in the matrix's own precision, with a gradient and without a look at the result.

    For matrices that cannot be singular, such as an identity plus squares: a check would stop the device at each step
    of training and cannot be mapped over models.
    """
    if not torch.onnx.is_in_onnx_export():
        return torch.linalg.cholesky_ex(matrix).L
    columns, rest = list[Tensor](), matrix  # ONNX has no factorization: column by column, which are few here
    for j in range(matrix.shape[-1]):
        columns.append(rest[..., j] * rest[..., j, j, None].rsqrt())
        rest = rest - columns[j][..., :, None] * columns[j][..., None, :]
    return torch.stack(columns, -1).tril()


def right_divide_tril(left: Float[Tensor, "*B D R"], tril: Float[Tensor, "*B R R"]) -> Float[Tensor, "*B D R"]:
    """``left @ inverse(tril).T`` for a lower triangular matrix, with a gradient."""
    if not torch.onnx.is_in_onnx_export():
        return torch.linalg.solve_triangular(tril.mT, left, upper=True, left=False)
    columns, rest = list[Tensor](), left
    for j in range(tril.shape[-1]):
        columns.append(rest[..., j] / tril[..., j, j, None])
        rest = rest - columns[j][..., :, None] * tril[..., None, :, j]
    return torch.stack(columns, -1)


def orthonormal(matrix: Float[Tensor, "D W"]) -> Float[Tensor, "D W"]:
    """Orthonormal columns that span those of ``matrix``."""
    return torch.linalg.qr(matrix).Q

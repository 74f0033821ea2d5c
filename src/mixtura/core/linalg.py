"""Dense linear algebra, in float64 unless stated otherwise; the only module of mixtura that calls ``torch.linalg``."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch.linalg is untyped; the signatures below supply the types

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mixtura.errors import CollapsedComponent

BLOCK_ROWS = 128  # largest triangle that is not split further
AT_ONCE = 1 << 22  # numbers in the triangles that are inverted together


def cholesky(matrix: Float[Tensor, "*B D D"]) -> Float[Tensor, "*B D D"]:
    r"""Lower Cholesky factor ``L`` with ``L L' = matrix`` and a positive diagonal, in float64.

    No jitter and no retry: covariances are positive definite by construction, so a failure is an error.

    Raises:
        CollapsedComponent: a matrix is not positive definite; the message names the component.
    """
    factor, info = torch.linalg.cholesky_ex(matrix.double())
    if bool((info != 0).any()):
        worst = int(info.reshape(-1).ne(0).nonzero()[0, 0])
        raise CollapsedComponent(
            f"The covariance of component {worst} is not positive definite in {matrix.shape[-1]} dimensions.",
            "Use a larger floor, a prior with more strength, or a diagonal family.",
        )
    return factor


def inverse_tril(tril: Float[Tensor, "*B D D"]) -> Float[Tensor, "*B D D"]:
    """Inverse of a lower triangular matrix, in float64; recursive, because a solver does not skip the zeros."""
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
    """``L L'`` of a lower triangular matrix, in its own dtype; recursive, which skips the zeros."""
    size = tril.shape[-1]
    if size <= BLOCK_ROWS:
        return tril @ tril.mT
    half = size // 2
    top, low, last = tril[..., :half, :half], tril[..., half:, :half], tril[..., half:, half:]
    side = low @ top.mT
    return _joined(gram_tril(top), side, side.mT, low @ low.mT + gram_tril(last))


def matmul_tril(left: Float[Tensor, "*B D D"], right: Float[Tensor, "*B D D"]) -> Float[Tensor, "*B D D"]:
    """Product of two lower triangular matrices; recursive, which skips the zeros."""
    size = left.shape[-1]
    if size <= BLOCK_ROWS:
        return left @ right
    half = size // 2
    (a, _, b, c), (d, _, e, f) = (_quarters(matrix, half) for matrix in (left, right))
    low = b @ d + c @ e
    return _joined(matmul_tril(a, d), low, torch.zeros_like(low).mT, matmul_tril(c, f))


def _quarters(matrix: Float[Tensor, "*B D D"], half: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four blocks, in row-major order."""
    top, bottom = matrix[..., :half, :], matrix[..., half:, :]
    return top[..., :half], top[..., half:], bottom[..., :half], bottom[..., half:]


def _joined(top: Tensor, low: Tensor, right: Tensor, last: Tensor) -> Float[Tensor, "*B D D"]:
    """Matrix assembled from four blocks, out of place to keep the gradient."""
    return torch.cat([torch.cat([top, right], -1), torch.cat([low, last], -1)], -2)


def precision_tril(covariance: Float[Tensor, "*B D D"]) -> Float[Tensor, "*B D D"]:
    r"""Whitening matrix: lower triangular W with :math:`W^\top W = \Sigma^{-1}` and a positive diagonal, in float64.

    It is the inverse of the Cholesky factor.

    Raises:
        CollapsedComponent: a matrix is not positive definite.
    """
    factor = cholesky(covariance)
    if factor.requires_grad:
        return inverse_tril(factor)
    size = factor.shape[-1]
    out = torch.empty(factor.shape, dtype=factor.dtype, device=factor.device)  # row-major, like loaded tensors
    step = max(1, AT_ONCE // size**2)
    parts = (flat.view(-1, size, size).split(step) for flat in (factor, out))
    for tril, inverse in zip(*parts, strict=True):
        _invert_into(inverse, tril)
    return out


def _invert_into(out: Float[Tensor, "B D D"], tril: Float[Tensor, "B D D"]) -> None:
    """Write inverses of lower triangular matrices to ``out``; as :func:`inverse_tril`, without copies of blocks."""
    size = tril.shape[-1]
    if size <= BLOCK_ROWS:
        out.copy_(inverse_tril(tril))
        return
    half = size // 2
    _invert_into(out[:, :half, :half], tril[:, :half, :half])
    _invert_into(out[:, half:, half:], tril[:, half:, half:])
    out[:, :half, half:] = 0
    torch.bmm(out[:, half:, half:], tril[:, half:, :half] @ out[:, :half, :half], out=out[:, half:, :half]).neg_()


def covariance_of(precision_tril: Float[Tensor, "*B D D"]) -> Float[Tensor, "*B D D"]:
    """Covariance matrices of the precision factors ``precision_tril``, in float64."""
    return gram_tril(inverse_tril(precision_tril))


def solve_rows(tril: Float[Tensor, "D D"], rows: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """``inverse(tril)`` times each row, in the dtype of the rows."""
    return torch.linalg.solve_triangular(tril, rows.T, upper=False).T


def solve(matrix: Float[Tensor, "D D"], right: Float[Tensor, " D"]) -> Float[Tensor, " D"]:
    """The vector that ``matrix`` maps to ``right``."""
    solution: Tensor = torch.linalg.solve(matrix, right)  # pyright: ignore[reportUnknownMemberType]
    return solution


def half_log_det(tril: Float[Tensor, "*B D D"]) -> Float[Tensor, "*B"]:
    """Log-determinant of a triangular matrix with a positive diagonal, in nats."""
    return log_diagonal(tril).sum(-1)


def log_diagonal(tril: Float[Tensor, "*B D D"]) -> Float[Tensor, "*B D"]:
    """Logarithm of the diagonal of a triangular matrix with a positive diagonal."""
    return tril.diagonal(dim1=-2, dim2=-1).log()


def tril_of(log_diagonal: Float[Tensor, "*B D"], lower: Float[Tensor, "*B D D"]) -> Float[Tensor, "*B D D"]:
    """Lower triangular matrix with a positive diagonal, from unconstrained parameters."""
    return lower.tril(-1) + torch.diag_embed(log_diagonal.exp())


def free_tril(tril: Float[Tensor, "*B D D"]) -> dict[str, Tensor]:
    """Unconstrained parameters of a lower triangular matrix; the inverse of :func:`tril_of`."""
    return {"log_diagonal": log_diagonal(tril), "lower": tril.tril(-1)}


def coordinates(rows: Float[Tensor, "N D"]) -> Float[Tensor, "N R"]:
    """Coordinates of rows in an orthonormal basis of a space that holds them; R is the smaller of N and D; float64."""
    return torch.linalg.qr(rows.double().T, mode="r").R.T.contiguous()


def eigh(matrix: Float[Tensor, "*B D D"]) -> tuple[Float[Tensor, "*B D"], Float[Tensor, "*B D D"]]:
    """Eigenvalues in descending order and their eigenvectors as columns, in float64."""
    values, vectors = torch.linalg.eigh(matrix.double())
    return values.flip(-1), vectors.flip(-1)


def solve_spd(matrix: Float[Tensor, "*B R R"], right: Float[Tensor, "*B R M"]) -> Float[Tensor, "*B R M"]:
    """Solution y of ``matrix @ y = right`` for a positive definite matrix, in float64."""
    return torch.cholesky_solve(right.double(), cholesky(matrix))


def small_inverse(
    matrix: Float[Tensor, "B Q Q"],
) -> tuple[Float[Tensor, "B Q Q"], Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """Inverse, logarithm of the absolute determinant, and whether the determinant is positive; for many small ones.

    A singular matrix has an inverse that is not finite.
    """
    if matrix.shape[-1] == 1:
        value = matrix[:, 0, 0]
        return matrix.reciprocal(), value.abs().log(), value > 0
    inverse, info = torch.linalg.inv_ex(matrix)
    sign, log_det = torch.linalg.slogdet(matrix)
    return inverse, log_det, (sign > 0) & (info == 0)


def squared_norms(rows: Float[Tensor, "*N D"]) -> Float[Tensor, "*N"]:
    """Squared norm of each row, in the dtype of the rows and without copying them."""
    return torch.linalg.vector_norm(rows, dim=-1).square()


def svd_right(x: Float[Tensor, "N D"], rank: int) -> tuple[Float[Tensor, " R"], Float[Tensor, "D R"]]:
    """The ``rank`` largest singular values of ``x`` and their right singular vectors, in float64.

    Uses the smaller of the two Gram matrices, so a wide ``x`` costs only N N D.
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
    """Lower Cholesky factor in the matrix's own dtype, differentiable and without an error check.

    For matrices that cannot be singular, such as an identity plus squares. A check would synchronize the device at
    each training step and does not work under ``vmap``.
    """
    if not torch.onnx.is_in_onnx_export():
        return torch.linalg.cholesky_ex(matrix).L
    columns, rest = list[Tensor](), matrix  # ONNX has no Cholesky; the few columns are computed one by one
    for j in range(matrix.shape[-1]):
        columns.append(rest[..., j] * rest[..., j, j, None].rsqrt())
        rest = rest - columns[j][..., :, None] * columns[j][..., None, :]
    return torch.stack(columns, -1).tril()


def right_divide_tril(left: Float[Tensor, "*B D R"], tril: Float[Tensor, "*B R R"]) -> Float[Tensor, "*B D R"]:
    """``left @ inverse(tril).T`` for a lower triangular matrix; differentiable."""
    if not torch.onnx.is_in_onnx_export():
        return torch.linalg.solve_triangular(tril.mT, left, upper=True, left=False)
    columns, rest = list[Tensor](), left
    for j in range(tril.shape[-1]):
        columns.append(rest[..., j] / tril[..., j, j, None])
        rest = rest - columns[j][..., :, None] * tril[..., None, :, j]
    return torch.stack(columns, -1)


def orthonormal(matrix: Float[Tensor, "D W"]) -> Float[Tensor, "D W"]:
    """Orthonormal basis of the column space of ``matrix``."""
    return torch.linalg.qr(matrix).Q

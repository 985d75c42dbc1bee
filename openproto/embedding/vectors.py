"""From what an embedder returns to vectors that a store can keep."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import TYPE_CHECKING, Any

from openproto.embedding.protocol import Vector
from openproto.errors import ProviderError

# Within these the square of a length neither overflows nor loses its digits.
_SMALLEST, _LARGEST = 1e-100, 1e100
_UNIT = 5e-7
"""How far from 1 the length of a vector in single precision may be that is a unit vector already."""

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def unit_vectors(rows: Sequence[Any], *, count: int, model: str, dim: int) -> list[Vector | ProviderError]:
    """Return each row as a unit vector, or the error that says what is wrong with that row alone.

    Raises `ProviderError` when there are not `count` rows, because then no row can be matched to its text.
    """
    if len(rows) != count:
        raise ProviderError(
            f"embedder {model!r} ({dim} dimensions) gave {len(rows)} vectors for {count} texts; use another"
        )
    import numpy as np

    row: Any = rows[0] if count == 1 else None
    is_single = type(row) is np.ndarray and row.dtype == np.float32 and row.shape == (dim,)
    if is_single and abs(np.vdot(row, row) - 1) < 2 * _UNIT:  # which overflows without a warning, as @ does not
        return [row.copy()]
    matrix: NDArray[np.float64] | None
    try:
        # In double precision: the squares of single-precision numbers may overflow.
        matrix = np.asarray(rows[0] if count == 1 else rows, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):  # rows of several lengths, or no numbers at all
        matrix = None
    if count == 1 and matrix is not None and matrix.shape == (dim,):
        # The usual case of one text, for which the arithmetic of matrices costs more than it saves.
        length = sqrt(np.vdot(matrix, matrix))
        if _SMALLEST < length < _LARGEST:
            return [(matrix / length).astype(np.float32)]
        matrix = matrix[None]
    if matrix is not None and matrix.shape == (count, dim):
        units = _normalised(matrix)
        if units is not None:
            return list(units)
    if count == 1:
        return [_fault(rows[0], matrix, model, dim)]
    return [vector for row in rows for vector in unit_vectors([row], count=1, model=model, dim=dim)]


def zero_vector(dim: int) -> Vector:
    """Return the vector of a blank text."""
    import numpy as np

    return np.zeros(dim, np.float32)


def _normalised(matrix: NDArray[np.float64]) -> NDArray[np.float32] | None:
    """Return the rows at unit length, rows of zeros as they are; None where a number is not finite."""
    import numpy as np

    lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
    if not (np.isfinite(lengths).all() and lengths.all()):
        # A row of zeros, or one whose squares leave the range of numbers: scaled first, or not a row of numbers.
        largest = np.abs(matrix).max(axis=1)
        if not np.isfinite(largest).all():
            return None
        matrix = matrix / np.where(largest == 0, 1, largest)[:, None]
        lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
        lengths[lengths == 0] = 1
    lengths[abs(lengths - 1) < _UNIT] = 1
    units: NDArray[np.float32] = (matrix / lengths[:, None]).astype(np.float32)
    return units


def _fault(row: Any, matrix: NDArray[np.float64] | None, model: str, dim: int) -> ProviderError:
    if matrix is None or matrix.ndim not in (1, 2):
        return ProviderError(f"embedder {model!r} gave something else than a vector of {dim} numbers; use another")
    if matrix.shape[-1] != dim:
        return ProviderError(f"embedder {model!r} gave a vector of {len(row)} dimensions instead of {dim}; use another")
    return ProviderError(
        f"embedder {model!r} gave NaN or infinity among {dim} dimensions ({dim} expected); use another"
    )

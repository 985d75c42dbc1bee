"""From what an embedder returns to vectors that a store can keep."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import hypot, isfinite
from typing import Any

from openproto.embedding.protocol import Vector
from openproto.errors import ProviderError


def unit_vectors(rows: Sequence[Any], *, count: int, model: str, dim: int) -> list[Vector | ProviderError]:
    """Return each row as a unit vector, or the error that tells what is wrong with that row alone.

    Raises `ProviderError` when there are not `count` rows, for then no row can be told to belong to its text.
    """
    if len(rows) != count:
        raise ProviderError(f"embedder {model!r} ({dim} dimensions) gave {len(rows)} vectors for {count} texts")
    return [_unit_vector(row, model, dim) for row in rows]


def _unit_vector(row: Any, model: str, dim: int) -> Vector | ProviderError:
    try:
        # NumPy's and torch's own floats are slow to iterate over; tolist() makes Python's in one go.
        values: list[float] = row.tolist() if hasattr(row, "tolist") else list(row)
        length = hypot(*values)
    except (TypeError, ValueError, OverflowError):
        return ProviderError(f"embedder {model!r} gave something else than a vector of {dim} numbers")
    if len(values) != dim:
        return ProviderError(f"embedder {model!r} gave a vector of {len(values)} dimensions instead of {dim}")
    if not isfinite(length):
        return ProviderError(f"embedder {model!r} gave NaN or infinity among {len(values)} dimensions ({dim} expected)")
    return array("f", [value / length for value in values] if length else values)

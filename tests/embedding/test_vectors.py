from __future__ import annotations

from array import array
from math import inf, nan

import numpy as np
import pytest

from openproto.embedding.vectors import unit_vectors
from openproto.errors import ProviderError


@pytest.mark.parametrize(
    "row",
    [
        *([3, 4], (3.0, 4.0), array("f", [3, 4]), np.array([3, 4], np.float32), np.array([3, 4], np.float16)),
        *([3e300, 4e300], [3e-300, 4e-300]),  # beyond and below what a float32 holds
    ],
)
def test_any_row_of_numbers_becomes_float32_of_unit_length(row: object) -> None:
    vector, zeros = unit_vectors([row, [0, 0]], count=2, model="m", dim=2)
    assert isinstance(vector, np.ndarray)
    assert vector.dtype == np.float32
    assert vector.tolist() == pytest.approx([0.6, 0.8])
    assert isinstance(zeros, np.ndarray)
    assert zeros.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ([1, 2, 3], "3 dimensions instead of 2"),
        ([], "0 dimensions instead of 2"),
        ([1, nan], "NaN or infinity among 2 dimensions (2 expected)"),
        ([inf, 1], "NaN or infinity"),
        (None, "vector of 2 numbers"),
        (["secret", "words"], "vector of 2 numbers"),
        ("zz", "vector of 2 numbers"),
    ],
)
def test_a_bad_row_is_that_rows_error_and_names_the_model(row: object, text: str) -> None:
    good, bad = unit_vectors([[3, 4], row], count=2, model="acme-1", dim=2)
    assert isinstance(good, np.ndarray)
    assert isinstance(bad, ProviderError)
    assert "acme-1" in str(bad)
    assert text in str(bad)
    assert "secret" not in str(bad)


@pytest.mark.parametrize("rows", [[], [[1, 0]], [[1, 0]] * 3])
def test_a_wrong_count_fails_the_batch(rows: list[list[float]]) -> None:
    with pytest.raises(ProviderError, match=f"'acme-1' .*gave {len(rows)} vectors for 2 texts"):
        unit_vectors(rows, count=2, model="acme-1", dim=2)

"""How a computed model is compared with a golden one: entry by entry, relative to the size of that entry.

The size of an entry is the largest magnitude that it reaches on the way, so that one that passes through zero is not
held to a relative error, while one of 1e-6 is not hidden behind a neighbour of 1e4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

TOLERANCE = {"float64": 1e-12, "float32": 1e-6}  # a few thousand, and eight, units in the last place

Model = Mapping[str, Any]


def as_arrays(model: Model, dtype: str) -> dict[str, npt.NDArray[Any]]:
    """Nested lists as arrays of that dtype."""
    return {name: np.asarray(values, dtype=dtype) for name, values in model.items()}


def assert_trajectory(got: Sequence[Model], want: Sequence[Model], *, start: Model, dtype: str) -> None:
    """Every model of `got` has the dtype, the names, the shapes and, within the tolerance, the values of `want`."""
    assert len(got) == len(want)
    for number, (mine, golden) in enumerate(zip(got, want, strict=True), start=1):
        assert list(mine) == list(golden)
        for name in golden:
            expected = np.asarray(golden[name], dtype="float64")
            path = [np.abs(np.asarray(model[name], dtype="float64")) for model in (start, *want)]
            value = np.asarray(mine[name])
            assert (str(value.dtype), value.shape) == (dtype, expected.shape), f"step {number}, entry {name!r}"
            off = np.max(np.abs(value.astype("float64") - expected) / np.max(path, axis=0))
            assert off <= TOLERANCE[dtype], f"step {number}, entry {name!r}: off by {off:.2g} of its size\n{value}"

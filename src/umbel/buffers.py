"""Memory for whole ``.safetensors`` files, header and data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from umbel.spec import Spec, aligned

Array = npt.NDArray[Any]
TINY = 1 << 12  # bytes of a file that is quicker copied from a template than written
SMALL = 1 << 16  # bytes of a file that is copied rather than aligned, lent memory for, or sent where it lies

Lend = Callable[[int], Array | None]
_lender: list[Lend] = [lambda _: None]


@contextmanager
def allocating(lend: Lend) -> Iterator[None]:
    """New arrays are made in memory that is lent, so that nobody need copy them there.

    Args:
        lend: gives so many bytes, aligned to 64, or None where ordinary memory will do.
    """
    before, _lender[0] = _lender[0], lend
    try:
        yield
    finally:
        _lender[0] = before


def new_file(spec: Spec) -> Array:
    """Memory for a whole file, of which the header is written."""
    size = spec.size
    if size <= TINY:
        return spec.template.copy()
    file = np.empty(size, np.uint8) if size <= SMALL else _lender[0](size)
    file = aligned(size) if file is None else file
    file[: len(spec.header)] = spec.head
    return file


def filled_file(spec: Spec, values: Mapping[str, Array]) -> Array:
    """A whole file with these values, read-only."""
    file = new_file(spec)
    for name, shape, dtype, begin in spec.slots:
        np.ndarray(shape, dtype, file, begin)[...] = values[name]
    file.flags.writeable = False
    return file


def stored_bytes(spec: Spec, values: Mapping[str, Array]) -> bytes:
    """The same without the header; of tiny ones, which takes half as long."""
    return b"".join([values[name].tobytes() for name, _, _, _ in spec.slots])


__all__ = ["SMALL", "TINY", "Array", "Lend", "allocating", "filled_file", "new_file", "stored_bytes"]

"""The elements of arrays: as the user gave them, as they are stored, and as NumPy computes with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from umbel.bfloat16 import from_bfloat16, to_bfloat16
from umbel.errors import EntryError
from umbel.spec import FLOATS, STORAGE, Entry, Spec, layout, resolve_role

Array = npt.NDArray[Any]
STRETCH = 1 << 16  # elements that stay in the second-level cache while they are looked at again
HARMLESS = {np.dtype("f4"): 1e30, np.dtype("f8"): 1e30}  # sums of squares of a block that no weight makes too large
_CODE = {dtype.newbyteorder("="): code for code, dtype in STORAGE.items() if code != "BF16"}


def scalar(value: float, dtype: str) -> Any:
    """A number in the precision in which NumPy computes with elements of this dtype."""
    return np.float64(value) if dtype == "F64" else np.float32(value)


def numbers(code: str, raw: Array) -> Array:
    """Stored elements as numbers that NumPy can compute with; 16-bit floats as float32."""
    if code == "BF16":
        return from_bfloat16(raw)
    return raw.astype(np.float32) if code == "F16" else raw


def cast(numbers: Array, code: str) -> Array:
    """Numbers as stored elements."""
    if code == "BF16":
        return to_bfloat16(numbers.astype(np.float32))
    return numbers.astype(STORAGE[code])


def as_storage(name: str, value: Any) -> tuple[str, Array]:
    """A value of the user's as (safetensors dtype, array of the storage dtype).

    Raises:
        EntryError: it cannot be carried; names it.
    """
    if not isinstance(name, str):
        raise EntryError(f"entry names are strings, not {type(name).__name__} ({name!r})")
    if isinstance(value, bytes | bytearray | memoryview):
        return "U8", np.frombuffer(value, np.uint8)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise EntryError(f"entry {name!r} is no array: {error}", entry=name) from error
    if isinstance(value, np.ma.MaskedArray):
        raise EntryError(f"entry {name!r} has a mask", entry=name, advice="say what is sent there: .filled(0)")
    if array.dtype.name == "bfloat16":
        return "BF16", array.view("<u2")
    code = _CODE.get(array.dtype.newbyteorder("=") if array.dtype.kind != "O" else array.dtype)
    if code is None:
        raise EntryError(
            f"entry {name!r} has dtype {array.dtype}, which Umbel does not carry",
            entry=name,
            advice="send floats, integers, booleans, or bytes (a payload)",
        )
    return code, array


def is_harmless(values: Array) -> bool:
    """Are these floats that are finite and far from overflow? False: they are not, or it takes a longer look."""
    return bool(values.dtype in HARMLESS and np.vdot(values, values) < HARMLESS[values.dtype])


def in_blocks(compute: Callable[..., object], out: Array, *inputs: Any) -> bool:
    """Write a large array block by block, and look at each block while it is in the cache.

    Args:
        compute: called as ``compute(block of out, block of each input)``; numbers are passed on as they are.
        out: the array, contiguous; little ones are written at once.
        inputs: contiguous arrays of its shape, and numbers.

    Returns:
        Is it a large array of floats, finite and far from overflow? False: nobody looked.
    """
    if out.size <= STRETCH:
        compute(out, *inputs)
        return is_harmless(out)
    flat = out.reshape(-1)
    rest = [i.reshape(-1) if isinstance(i, np.ndarray) else i for i in inputs]
    harmless = True
    for begin in range(0, flat.size, STRETCH):
        s = slice(begin, begin + STRETCH)
        block = flat[s]
        compute(block, *[i[s] if isinstance(i, np.ndarray) else i for i in rest])
        harmless = harmless and is_harmless(block)
    return harmless


def copy(values: Array, out: Array) -> bool:
    """Copy, and see whether the values are harmless; False: nobody looked."""
    if values.flags.c_contiguous:
        return in_blocks(np.copyto, out, values)
    np.copyto(out, values)
    return False


def entry_difference(e: Entry, mine: Array, its: Array, rtol: float, atol: float) -> str:
    """How two arrays of one entry differ, in words; "" when they do not."""
    if mine.tobytes() == its.tobytes():
        return ""
    a, b = (numbers(e.dtype, raw.reshape(-1)) for raw in (mine, its))
    if e.dtype in FLOATS and (rtol or atol) and np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True):
        return ""
    bits = f"<u{mine.itemsize}"
    unlike = mine.reshape(-1).view(bits) != its.reshape(-1).view(bits)  # equal NaNs are alike, 0.0 and -0.0 are not
    wide = np.float64 if e.dtype in FLOATS else object
    with np.errstate(all="ignore"):
        gap = np.abs(a[unlike].astype(wide) - b[unlike].astype(wide)).max()
    return f"entry {e.name!r} differs in {np.count_nonzero(unlike)} of {e.size} elements, by up to {gap:.6g}"


def check_shapes(mine: Spec, its: Spec) -> None:
    """Can arithmetic be done on arrays of these two specs?

    Raises:
        EntryError: no; names the entry.
    """
    for name in (*mine.names, *its.names):
        a, b = mine.by_name.get(name), its.by_name.get(name)
        if a is not None and b is None and a.role not in ("trained", "buffer"):
            continue  # an update has only what clients train
        if a is None or b is None or a.shape != b.shape:
            raise EntryError(
                f"arithmetic: entry {name!r} is {a.shape if a else 'missing'} and {b.shape if b else 'missing'}",
                entry=name,
                advice="both sides need the same names and shapes",
            )


def spec_of_plain(values: Mapping[str, Any]) -> Spec | None:
    """The spec of arrays of the usual kinds; it is looked up, for clients make the same one again and again."""
    found = []
    for name, value in values.items():
        if type(value) is not np.ndarray:
            return None
        found.append((name, value.dtype, value.shape))
    return _look_up(tuple(found))


@lru_cache(maxsize=256)
def _look_up(values: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]) -> Spec | None:
    if not all(type(name) is str and dtype in _CODE for name, dtype, _ in values):
        return None
    codes = [(name, _CODE[dtype], shape) for name, dtype, shape in values]
    return layout(Entry(n, code, shape, resolve_role(n, code, (), payload=False)) for n, code, shape in codes)


__all__ = [
    "HARMLESS",
    "STRETCH",
    "as_storage",
    "cast",
    "check_shapes",
    "copy",
    "entry_difference",
    "in_blocks",
    "is_harmless",
    "numbers",
    "scalar",
    "spec_of_plain",
]

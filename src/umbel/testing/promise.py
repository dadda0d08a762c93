"""How a suite says what was promised and not kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import numpy as np

from umbel.arrays import Arrays
from umbel.codec import decode, encode
from umbel.errors import UmbelError


@final
class Promise:
    """What an implementation of a seam must do.

    Args:
        who: "an aggregator", "a transform": how a sentence about it begins.
    """

    def __init__(self, who: str) -> None:
        self._who = who

    def require(self, kept: bool, words: str) -> None:
        """Fail with a sentence, unless the promise was kept."""
        if not kept:
            raise AssertionError(f"{self._who} must {words}")

    def same(self, one: Any, other: Any, words: str) -> None:
        """Both values have the same bits."""
        if text := difference(one, other):
            raise AssertionError(f"{self._who} must {words}: {text}")

    def close(self, one: Any, other: Any, words: str) -> None:
        """Both values are the same up to rounding."""
        if text := difference(one, other, rtol=1e-4, atol=1e-5):
            raise AssertionError(f"{self._who} must {words}: {text}")

    @contextmanager
    def doing(self, words: str) -> Iterator[None]:
        """Fail with a sentence where the implementation raises."""
        try:
            yield
        except (AssertionError, KeyboardInterrupt):
            raise
        except Exception as error:
            what = error.what if isinstance(error, UmbelError) else error
            raise AssertionError(f"{self._who} must {words}; it raised {type(error).__name__}: {what}") from error

    def written_down(self, value: Any, words: str) -> Any:
        """The value as another process reads it; fails if it cannot be written down, or comes back changed."""
        with self.doing(f"{words}, of plain values, arrays and dataclasses at the top of their module"):
            back = read_back(value)
        self.same(value, back, f"{words} that is the same when it is read back")
        return back


def read_back(value: Any) -> Any:
    """A value, written down and read again."""
    kept: list[bytes] = []

    def place(arrays: Arrays) -> str:
        kept.append(bytes(arrays.to_bytes()))
        return str(len(kept) - 1)

    return decode(encode(value, place), lambda name: Arrays.from_bytes(kept[int(name)]), allow=lambda _: True)


def bits(value: Any) -> Any:
    """What a value consists of, to be compared."""
    return encode(value, lambda arrays: arrays.digest())


def difference(one: Any, other: Any, *, rtol: float = 0.0, atol: float = 0.0) -> str:
    """What differs, in words; "" when nothing does."""
    if isinstance(one, Arrays) and isinstance(other, Arrays):
        return one.difference(other, rtol=rtol, atol=atol)
    if type(one) is not type(other):
        return f"a {type(one).__name__} and a {type(other).__name__}"
    if isinstance(one, float) and np.isclose(one, other, rtol=rtol, atol=atol, equal_nan=True):
        return ""
    return "" if bits(one) == bits(other) else f"{_short(one)} and {_short(other)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


__all__ = ["Promise", "bits", "difference", "read_back"]

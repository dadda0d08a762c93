"""Named, independent streams of random numbers.

Every random decision of a run draws from a stream that is named for it, for example
``stream(seed, "cohort", 3)``. So a decision does not depend on how many others were taken
before it, nor on who takes it, and a resumed run draws what it would have drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from operator import index

import numpy as np

Name = str | int


def _encode(parts: Iterable[Name]) -> bytes:
    """Parts as bytes that no other parts give: type and length stand in front of each."""
    return "".join([_text(p) if isinstance(p, str) else _number(p) for p in parts]).encode()


def _text(part: str) -> str:
    return f"s{len(part) if part.isascii() else len(part.encode())}:{part}"


def _number(part: int) -> str:
    digits = str(index(part))
    return f"i{len(digits)}:{digits}"


def derive(seed: int, *names: Name) -> int:
    """The 128-bit integer that names a stream; the same for the same arguments everywhere."""
    return int.from_bytes(hashlib.blake2b(_encode((seed, *names)), digest_size=16).digest(), "little")


def family(seed: int, before: Iterable[Name], after: Iterable[Name]) -> Callable[[Name], int]:
    """``derive(seed, *before, name, *after)`` as a function of the name, which is quicker for many names."""
    head, tail = _encode((seed, *before)), _encode(after)

    def derived(name: Name) -> int:
        middle = (_text(name) if isinstance(name, str) else _number(name)).encode()
        digest = hashlib.blake2b(b"%b%b%b" % (head, middle, tail), digest_size=16).digest()
        return int.from_bytes(digest, "little")

    return derived


def stream(seed: int, *names: Name) -> np.random.Generator:
    """A generator of its own for one decision.

    Args:
        seed: the seed of the run, a non-negative integer.
        names: what is decided, for example ``"cohort", 3``; strings and integers.

    Returns:
        A NumPy generator. Streams with different names are independent.
    """
    return np.random.Generator(np.random.PCG64(derive(seed, *names)))


__all__ = ["derive", "family", "stream"]

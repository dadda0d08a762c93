"""Iterators that end when one is done with them, not when the garbage is collected."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


@asynccontextmanager
async def ending(iterator: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """The iterator; if it is a generator, what it does in ``finally`` is done when the block is left."""
    try:
        yield iterator
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


__all__ = ["ending"]

"""Iterators that end when one is done with them, not when the garbage is collected."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar, final

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


@final
class Source(Generic[T]):
    """An iterator, and the error that it ended with: it is the caller's own, and must reach the caller as it was.

    Attributes:
        error: what it raised.
    """

    def __init__(self, iterator: AsyncIterator[T]) -> None:
        self._iterator = iterator
        self.error: Exception | None = None

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await anext(self._iterator)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.error = error
            raise


__all__ = ["Source", "ending"]

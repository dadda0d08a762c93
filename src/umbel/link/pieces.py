"""Pieces of large blobs on their way from a file and into one, with little ado for each.

A thread does what takes long: copying, writing, summing up. To hand it a piece costs about as much as copying one, so
it gets several at a time where they come fast.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import AsyncIterator, Callable, Sized
from io import SEEK_END, FileIO
from pathlib import Path
from typing import Any, Self, TypeVar, final

from umbel.link.base import Data
from umbel.link.ending import ending
from umbel.wire.limits import INLINE

T = TypeVar("T", bound=Sized)
_MOST = 2  # pieces at a time: 2 MiB on their way in or out, and as much in the hands of the thread
_FAST = 0.1  # seconds in which they are gone where somebody reads fast


@final
class _File(FileIO):
    """A file that is open as long as somebody may read it."""

    def __del__(self) -> None:
        self.close()


@final
class Stretch:
    """Bytes of a file, which are read into the message that they travel in.

    Args:
        file: which.
        offset: where they begin.
        size: how many; fewer, should somebody cut the file.
    """

    def __init__(self, file: _File, offset: int, size: int) -> None:
        self._file, self._offset, self._size = file, offset, size

    def __len__(self) -> int:
        return self._size

    def readinto(self, place: memoryview) -> int:
        """Read them; gives how many there are now."""
        there = self._file.seek(self._offset) - self._offset
        while there < self._size and (more := self._file.readinto(place[there:])):
            there += more
        return there


async def file_pieces(path: Path, offset: int, size: int) -> AsyncIterator[Stretch]:
    """A file from an offset on, in pieces of so many bytes, whatever somebody else does to it meanwhile."""
    file = _File(path)
    end = file.seek(0, SEEK_END)
    for begin in range(offset, end, size):
        yield Stretch(file, begin, min(size, end - begin))


async def mapped_pieces(path: Path, offset: int, size: int) -> AsyncIterator[Data]:
    """The same without a copy, of a file that only gets removed: one that is cut would kill who reads it."""
    with path.open("rb") as file:
        if file.seek(0, 2) <= offset:
            return
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    for begin in range(offset, len(whole), size):
        yield whole[begin : begin + size]


async def ahead(pieces: AsyncIterator[T], make: Callable[[T], bytes]) -> AsyncIterator[bytes]:
    """Messages made of pieces, while those before are under way.

    Who reads slowly makes this hold one or two of them, who reads fast four.

    Args:
        pieces: to take; closed at the end. Where they end with an error, what came before comes out before it.
        make: copies a piece into a message.
    """
    clock, most = asyncio.get_running_loop().time, 1
    async with ending(pieces):
        coming = await _begun(pieces, most, make)
        try:
            while True:
                ready, error = await coming
                if ready and error is None:
                    coming = await _begun(pieces, most, make)
                began = clock()
                for message in ready:
                    yield message
                most = min(2 * most, _MOST) if clock() - began < _FAST else 1
                if error is not None:
                    raise error
                if not ready:
                    return
        finally:
            await over(coming)


_Made = tuple[list[bytes], Exception | None]


async def _begun(pieces: AsyncIterator[T], most: int, make: Callable[[T], bytes]) -> asyncio.Future[_Made]:
    """Begin to make the next messages; none, if there are no more pieces. With them comes what ended the pieces."""
    batch: list[T] = []
    ended: Exception | None = None
    try:
        while len(batch) < most and (piece := await anext(pieces, None)) is not None:
            batch.append(piece)
    except Exception as error:  # noqa: BLE001  # who takes the messages raises it
        ended = error

    def made() -> _Made:
        return list(map(make, batch)), ended

    if sum(map(len, batch)) > INLINE:
        return asyncio.get_running_loop().run_in_executor(None, made)
    small: asyncio.Future[_Made] = asyncio.get_running_loop().create_future()
    small.set_result(made())
    return small


async def over(future: asyncio.Future[Any]) -> None:
    """Wait until it is over, however it ends, even if one is cancelled meanwhile: what it uses is let go of next."""
    cancelled = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


@final
class Behind:
    """Takes pieces in their order, in a thread, while the next ones come; is to be entered.

    On leaving, all that came is taken, also where an error ended the coming.

    Args:
        take: takes a piece. What it raises, `put` raises later, or leaving; then no more are taken.
    """

    def __init__(self, take: Callable[[Data], None]) -> None:
        self._take = take
        self._waiting: list[Data] = []
        self._running: asyncio.Future[None] | None = None
        self._broken = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while not self._broken and (self._waiting or self._running is not None):
            await self._turn()

    async def put(self, piece: Data) -> None:
        """Have it taken; waits where they come faster than they are taken."""
        self._waiting.append(piece)
        if len(self._waiting) >= _MOST:
            await self._turn()

    async def _turn(self) -> None:
        """Wait for those that are being taken, and begin with those that came since."""
        if self._running is not None:
            running, self._running = self._running, None
            try:
                await over(running)
            finally:
                self._broken = running.exception() is not None
            running.result()
        batch, self._waiting = self._waiting, []
        if batch:
            # no task: those are cancelled when the loop ends, and the thread would go on with what was closed
            self._running = asyncio.get_running_loop().run_in_executor(None, self._all, batch)

    def _all(self, batch: list[Data]) -> None:
        for piece in batch:
            self._take(piece)


__all__ = ["Behind", "Stretch", "ahead", "file_pieces", "mapped_pieces", "over"]

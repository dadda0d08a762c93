"""Blobs on their way in and out, a piece at a time: memory does not grow with their size or their number."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import final

from umbel.errors import NotThere, Rejected
from umbel.link.base import Data
from umbel.link.ending import ending
from umbel.link.pieces import Behind, mapped_pieces, over
from umbel.server.counts import Counts
from umbel.store.sql import ServerStore
from umbel.store.sql.incoming import Incoming
from umbel.wire import CHUNK, BlobHead

_LARGEST = 64 << 30  # bytes of one blob
_AT_ONCE = 16  # blobs that one reader is sent at a time; each takes some MiB of memory while the reader is slow


@final
class Uploads:
    """The blobs of a store, in pieces.

    Args:
        store: of the server.
        counts: what is counted.
        largest: bytes that one blob may have.
    """

    def __init__(self, store: ServerStore, counts: Counts, *, largest: int = _LARGEST) -> None:
        self._blobs, self._counts, self._largest = store.blobs, counts, largest
        self._reading = _Turns()

    def stat(self, digest: str, sender: str) -> tuple[int, bool]:
        """How many bytes of a blob are here of what this sender sends, and whether that is all of it."""
        size = self._blobs.find(digest)
        if size is not None:
            return size, True
        return self._blobs.received(digest, sender), False

    async def write(self, head: BlobHead, pieces: AsyncIterator[Data], sender: str) -> tuple[int, bool]:
        """Take bytes from an offset on. What came before the connection broke stays for the sender's next try.

        Each sender has a file of its own until all has come: nobody has to wait for somebody else, who may never send
        the rest, or trust what that one has sent.

        Raises:
            Rejected: it is too large, the offset is not where the bytes end that are here, or the digest is wrong.
        """
        digest = head.digest.hex()
        if head.size > self._largest:
            raise Rejected(f"blob {digest[:12]} has {head.size:,} bytes, {self._largest:,} are accepted")
        found = self._blobs.find(digest)
        if found is not None:
            return found, True
        async with self._incoming(digest, head.size, sender) as incoming:
            if incoming.received != head.offset:
                raise Rejected(
                    f"blob {digest[:12]}: {incoming.received:,} bytes are here, and these begin at {head.offset:,}",
                    advice="ask how many are here (StatBlob), and go on from there",
                )
            async with Behind(incoming.write) as behind:
                async for piece in pieces:
                    await behind.put(piece)
                    self._counts.moved["in"] += len(piece)
            if incoming.received < head.size:
                return incoming.received, False
            finishing = asyncio.get_running_loop().run_in_executor(None, incoming.finish)
            try:
                await over(finishing)  # closing it would wait for the disk, and the event loop with it
            finally:
                failed = finishing.exception()
            if failed is not None:
                raise failed
            return head.size, True

    @asynccontextmanager
    async def _incoming(self, digest: str, size: int, sender: str) -> AsyncIterator[Incoming]:
        """An upload, which is closed in the end, also where its sender has gone before it was there."""
        opening = asyncio.get_running_loop().run_in_executor(None, self._blobs.incoming, digest, size, sender)
        try:
            await over(opening)
            yield opening.result()
        finally:
            if opening.exception() is None:
                opening.result().close()

    async def read(self, digest: str, offset: int, reader: str) -> AsyncIterator[Data]:
        """A blob's bytes from an offset on. Who reads many at a time waits, lest it fill the memory by being slow.

        Raises:
            NotThere: there is no such blob.
        """
        async with self._reading.turn(reader), ending(self._read(digest, offset)) as pieces:
            async for piece in pieces:
                yield piece

    async def _read(self, digest: str, offset: int) -> AsyncIterator[Data]:
        found = self._blobs.read(digest)
        if found is None:
            raise NotThere(f"there is no blob {digest[:12]}", advice="its run may have gone on, or was removed")
        if isinstance(found, Path):
            async for piece in mapped_pieces(found, offset, CHUNK):
                yield piece
                self._counts.moved["out"] += len(piece)
        else:
            yield found[offset:]


@final
class _Turns:
    """Lets each do so many things at a time; more of them wait."""

    def __init__(self) -> None:
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._wanted: Counter[str] = Counter()

    @asynccontextmanager
    async def turn(self, who: str) -> AsyncIterator[None]:
        """Its turn."""
        turns = self._turns.setdefault(who, asyncio.Semaphore(_AT_ONCE))
        self._wanted[who] += 1
        try:
            async with turns:
                yield
        finally:
            self._wanted[who] -= 1
            if not self._wanted[who]:
                del self._wanted[who], self._turns[who]


__all__ = ["Uploads"]

"""Blobs on their way in and out, a piece at a time: memory does not grow with their size or their number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import final

from umbel.errors import NotThere, Rejected
from umbel.link.base import Data
from umbel.link.pieces import Behind, file_pieces
from umbel.server.counts import Counts
from umbel.store.sql import Incoming, ServerStore
from umbel.wire import CHUNK

_LARGEST = 64 << 30  # bytes of one blob


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
        self._writing: dict[str, asyncio.Lock] = {}

    def stat(self, digest: str) -> tuple[int, bool]:
        """How many bytes of a blob are here, and whether that is all of it."""
        size = self._blobs.find(digest)
        if size is not None:
            return size, True
        return self._blobs.received(digest), False

    async def write(self, digest: str, size: int, offset: int, pieces: AsyncIterator[Data]) -> tuple[int, bool]:
        """Take bytes from an offset on. What came before the connection broke stays for the next try.

        Raises:
            Rejected: it is too large, the offset is not where the bytes end that are here, or the digest is wrong.
        """
        if size > self._largest:
            raise Rejected(f"blob {digest[:12]} has {size:,} bytes, {self._largest:,} are accepted")
        lock = self._writing.setdefault(digest, asyncio.Lock())
        try:
            async with lock:  # two nodes may send the same bytes
                found = self._blobs.find(digest)
                if found is not None:
                    return found, True
                incoming = await asyncio.to_thread(self._blobs.incoming, digest, size)
                return await self._fill(incoming, digest, size, offset, pieces)
        finally:
            if not lock.locked():
                self._writing.pop(digest, None)

    async def _fill(
        self, incoming: Incoming, digest: str, size: int, offset: int, pieces: AsyncIterator[Data]
    ) -> tuple[int, bool]:
        try:
            if incoming.received != offset:
                raise Rejected(
                    f"blob {digest[:12]}: {incoming.received:,} bytes are here, and these begin at {offset:,}",
                    advice="ask how many are here (StatBlob), and go on from there",
                )
            async with Behind(incoming.write) as behind:
                async for piece in pieces:
                    await behind.put(piece)
                    self._counts.moved["in"] += len(piece)
            if incoming.received < size:
                return incoming.received, False
            await asyncio.to_thread(incoming.finish)
            return size, True
        finally:
            incoming.close()

    async def read(self, digest: str, offset: int) -> AsyncIterator[Data]:
        """A blob's bytes from an offset on.

        Raises:
            NotThere: there is no such blob.
        """
        found = self._blobs.read(digest)
        if found is None:
            raise NotThere(f"there is no blob {digest[:12]}", advice="its run may have gone on, or was removed")
        if isinstance(found, Path):
            async for piece in file_pieces(found, offset, CHUNK):
                yield piece
                self._counts.moved["out"] += len(piece)
        else:
            yield found[offset:]


__all__ = ["Uploads"]

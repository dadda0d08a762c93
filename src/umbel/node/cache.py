"""Blobs that the server has sent, in files named by their digest: a model crosses once per node and round.

A download that was broken off goes on where it stopped. Bytes are verified while they arrive; a file that this process
did not write is verified before its first use, and is fetched again if it is damaged. Our copies: one, from the
message into the file; whoever uses a blob maps that.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from shutil import disk_usage
from typing import Any, final

from umbel.digest import Digest, is_file_named
from umbel.errors import CorruptFile, DiskFull
from umbel.link.base import Data
from umbel.link.ending import ending
from umbel.link.pieces import Behind
from umbel.store.durable import readable_errors, write_all

_PART = ".part"
_PIECE = 1 << 20  # bytes that are read at a time
_TRIES = 3  # of a blob whose bytes did not have its digest
Read = Callable[[int], AsyncIterator[Data]]


@final
class BlobCache:
    """The blobs in one directory.

    Args:
        directory: where the files lie; it is made if it does not exist.
        most: bytes that all files may have together, but for those in use; fewer where the disk has no room for more.
    """

    def __init__(self, directory: Path, *, most: int) -> None:
        self._directory, self._most = directory, most
        with readable_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            found = [(e.stat().st_mtime, e.name, e.stat().st_size) for e in os.scandir(directory) if e.is_file()]
        self._sizes = OrderedDict((name, size) for _, name, size in sorted(found))  # the longest unused first
        self._trusted: set[str] = set()
        self._used: dict[str, int] = {}
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._evict(0, answer=max(self._sizes.values(), default=0))

    def path(self, digest: str) -> Path:
        """Where a blob lies."""
        return self._directory / digest

    @contextmanager
    def pinned(self, digest: str) -> Iterator[None]:
        """The blob is not removed meanwhile."""
        self._used[digest] = self._used.get(digest, 0) + 1
        try:
            yield
        finally:
            self._used[digest] -= 1
            if not self._used[digest]:
                del self._used[digest]
                self._evict(0)

    async def get(self, digest: str, size: int, read: Read) -> Path:
        """The file of a blob, which is fetched if it is not here; whoever asks meanwhile waits for the same.

        Args:
            digest: 64 hex digits.
            size: bytes.
            read: gives the blob's bytes from an offset to its end.

        Raises:
            CorruptFile: what was sent has another digest, again and again.
            DiskFull: there is no room.
        """
        async with self._alone(digest):
            if await self._is_here(digest, size):
                self._sizes.move_to_end(digest)
                os.utime(self.path(digest))
                self._evict(0, answer=size)  # most are as large as their model
                return self.path(digest)
            for _ in range(_TRIES):
                if await self._fetched(digest, size, read):
                    return self.path(digest)
        raise CorruptFile(
            f"the server has sent bytes that do not have the digest {digest}",
            advice="look for a proxy that changes what passes through it",
        )

    @asynccontextmanager
    async def _alone(self, digest: str) -> AsyncIterator[None]:
        """One at a time for each blob; the lock is forgotten when nobody waits for it."""
        lock, count = self._locks.get(digest) or (asyncio.Lock(), 0)
        self._locks[digest] = lock, count + 1
        try:
            async with lock:
                yield
        finally:
            lock, count = self._locks.pop(digest)
            if count > 1:
                self._locks[digest] = lock, count - 1

    async def _is_here(self, digest: str, size: int) -> bool:
        path = self.path(digest)
        if digest in self._trusted and _size(path) == size:
            return True
        self._trusted.discard(digest)
        if not path.exists() or _size(path) != size or not await asyncio.to_thread(_is_named, path, digest):
            self._forget(digest)
            return False
        self._trusted.add(digest)
        return True

    async def _fetched(self, digest: str, size: int, read: Read) -> bool:
        """Did bytes come that have the digest?"""
        part = self.path(digest).with_name(digest + _PART)
        there = _size(part)
        if there > size:
            part.unlink()
            there = 0
        self._evict(size, answer=size)
        running = await asyncio.to_thread(_hash, part, there)
        try:
            received = await self._receive(part, there, size, running, read)
        finally:  # also where its task was revoked meanwhile: nobody may come for the rest
            if part.exists():
                self._sizes[part.name] = _size(part)
        if received == size and await asyncio.to_thread(_is_named, part, digest, running.digest()):
            os.replace(part, self.path(digest))
            self._sizes.pop(part.name)
            self._sizes[digest] = size
            self._trusted.add(digest)
            return True
        if received >= size:  # the whole, and it is another
            self._forget(part.name)
        return False

    async def _receive(self, part: Path, there: int, size: int, running: Any, read: Read) -> int:
        """Write what comes behind what is there; gives how much there is then."""
        with readable_errors(part):
            file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.lseek(file, there, os.SEEK_SET)
        try:
            async with Behind(partial(_take, part, file, running)) as behind, ending(read(there)) as pieces:
                async for piece in pieces:
                    there += len(piece)
                    if there > size:
                        break
                    await behind.put(piece)
        except DiskFull:
            self._forget(part.name)
            raise
        finally:
            os.close(file)
        return there

    def _forget(self, name: str) -> None:
        self._sizes.pop(name, None)
        self._trusted.discard(name)
        self.path(name).unlink(missing_ok=True)

    def _evict(self, coming: int, answer: int = 0) -> None:
        """Remove what was not used for the longest time, until so many bytes more would fit, and an answer."""
        total, lacking = sum(self._sizes.values()) + coming, coming + answer - disk_usage(self._directory).free
        for name, size in list(self._sizes.items()):
            if total <= self._most and lacking <= 0:
                return
            if name.removesuffix(_PART) not in self._used and name.removesuffix(_PART) not in self._locks:
                self._forget(name)
                total -= size
                lacking -= size


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _is_named(path: Path, digest: str, found: bytes | None = None) -> bool:
    with readable_errors(path):
        return is_file_named(bytes.fromhex(digest), path, found)


def _hash(path: Path, size: int) -> Any:
    """The digest, running, of a file's first bytes."""
    running = Digest()
    if size:
        with readable_errors(path), open(path, "rb") as file:
            while size and (piece := file.read(min(size, _PIECE))):
                running.update(piece)
                size -= len(piece)
    return running


def _take(path: Path, file: int, running: Any, piece: Data) -> None:
    with readable_errors(path):
        write_all(file, piece)
    running.update(piece)


__all__ = ["BlobCache", "Read"]

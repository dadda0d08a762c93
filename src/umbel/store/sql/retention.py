"""What nothing needs any more goes: rows in one transaction, and then their files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, final

from sqlalchemy import Connection, bindparam, delete, exists, select

from umbel.errors import StoreError
from umbel.store.sql import runs
from umbel.store.sql.blobs import ServerBlobs
from umbel.store.sql.reading import Reader
from umbel.store.sql.tables import blob, reference
from umbel.store.sql.values import Swept
from umbel.store.sql.writer import Work

logger = logging.getLogger("umbel")
HOUR = 3600.0  # seconds
_MUCH = 1 << 30  # bytes in files that have come since the last sweep
_UNNAMED = select(blob.c.digest, blob.c.size).where(~exists().where(reference.c.digest == blob.c.digest))
_FILES = select(blob.c.digest).where(blob.c.content.is_(None))
_DROP = delete(blob).where(blob.c.digest == bindparam("unneeded"))


@final
class _Gone(NamedTuple):
    """What went from the database: digests, and bytes."""

    digests: tuple[str, ...]
    bytes: int


@final
class Sweeper:
    """Removes blobs that nothing needs, beside all else that goes on: to remove a large file takes its time.

    Args:
        write: has work done in a transaction.
        read: reads from the database.
        blobs: of the server.
    """

    def __init__(self, write: Callable[[Work[Any]], Future[Any]], read: Reader, blobs: ServerBlobs) -> None:
        self._write, self._read, self._blobs = write, read, blobs
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="umbel-sweep")

    def sweep(self, age: float = HOUR) -> Future[Swept]:
        """See `ServerStore.sweep`."""
        found: Future[_Gone] = self._write(lambda connection: _unnamed(connection, self._blobs, age))

        def remove() -> Swept:
            gone = found.result()
            more, incoming = self._blobs.sweep(gone.digests, lambda: self._read(_files), age)
            return Swept(blobs=len(gone.digests), bytes=gone.bytes + more, incoming=incoming)

        return self._thread.submit(remove)

    def sweep_if_grown(self) -> None:
        """A few rounds of large models leave more than may lie there until somebody sweeps."""
        if self._blobs.grown >= _MUCH:
            self._blobs.grown = 0
            with suppress(StoreError):  # the store is being closed
                self.sweep().add_done_callback(_say_failed)

    def close(self) -> None:
        """End; what is left is removed the next time."""
        self._thread.shutdown()


def _say_failed(swept: Future[Swept]) -> None:
    if not swept.cancelled() and (error := swept.exception()) is not None:
        logger.warning("not-swept: %s", error)


def _unnamed(connection: Connection, blobs: ServerBlobs, age: float) -> _Gone:
    """Remove the rows of blobs that nothing names and that nobody has kept lately."""
    runs.keep_last(connection)
    fresh = blobs.fresh(age)
    found = [(d, size) for d, size in connection.execute(_UNNAMED) if d not in fresh]
    if found:
        connection.execute(_DROP, [{"unneeded": digest} for digest, _ in found])
    return _Gone(tuple(digest for digest, _ in found), sum(size for _, size in found))


def _files(connection: Connection) -> frozenset[str]:
    """The digests of all files that are named, once what went is gone for good: it may have been named anew since."""
    return frozenset(connection.execute(_FILES).scalars())


__all__ = ["HOUR", "Sweeper"]

"""What nothing needs any more goes: rows in one transaction, and then their files."""

from __future__ import annotations

from typing import NamedTuple, final

from sqlalchemy import Connection, bindparam, delete, exists, select

from umbel.store.sql import runs
from umbel.store.sql.blobs import ServerBlobs
from umbel.store.sql.tables import blob, reference

_UNNAMED = select(blob.c.digest, blob.c.size).where(~exists().where(reference.c.digest == blob.c.digest))
_FILES = select(blob.c.digest).where(blob.c.content.is_(None))
_DROP = delete(blob).where(blob.c.digest == bindparam("unneeded"))


@final
class Gone(NamedTuple):
    """What went from the database: digests, and bytes."""

    digests: tuple[str, ...]
    bytes: int


def sweep(connection: Connection, blobs: ServerBlobs, age: float) -> Gone:
    """Remove the rows of blobs that nothing names and that nobody has kept lately."""
    runs.keep_last(connection)
    fresh = blobs.fresh(age)
    found = [(d, size) for d, size in connection.execute(_UNNAMED) if d not in fresh]
    if found:
        connection.execute(_DROP, [{"unneeded": digest} for digest, _ in found])
    return Gone(tuple(digest for digest, _ in found), sum(size for _, size in found))


def files(connection: Connection) -> frozenset[str]:
    """The digests of all files that are named, once what went is gone for good: it may have been named anew since."""
    return frozenset(connection.execute(_FILES).scalars())


__all__ = ["Gone", "files", "sweep"]

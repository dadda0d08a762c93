"""Who needs which blob."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select

from umbel.errors import NotThere
from umbel.store.sql.blobs import ServerBlobs
from umbel.store.sql.tables import blob, reference
from umbel.store.sql.values import Holding, Kept

_THERE = select(blob.c.digest).where(blob.c.digest.in_(bindparam("digests", expanding=True)))
_ADD = insert(blob)
_NAME = insert(reference)
_NAMED = select(reference.c.digest).where(
    reference.c.run == bindparam("run"),
    reference.c.kind == bindparam("kind"),
    reference.c.number == bindparam("number"),
)
_SOME = 500  # parameters of one statement


def add(connection: Connection, blobs: ServerBlobs, kept: Sequence[Kept]) -> None:
    """Write down that these blobs are there.

    Raises:
        NotThere: one of them is not.
    """
    known: set[str] = set()
    digests = sorted({one.digest for one in kept})
    for i in range(0, len(digests), _SOME):
        known |= set(connection.execute(_THERE, {"digests": digests[i : i + _SOME]}).scalars())
    rows: dict[str, dict[str, object]] = {}
    for one in kept:
        if one.digest in known:
            continue
        if one.content is None and not blobs.path(one.digest).is_file():
            raise NotThere(f"blob {one.digest[:12]} is not here any more", advice="send it, then what names it")
        rows[one.digest] = {"digest": one.digest, "size": one.size, "content": one.content}
    if rows:
        connection.execute(_ADD, list(rows.values()))


def name(
    connection: Connection, blobs: ServerBlobs, run: str, number: int, kept: Mapping[Holding, Sequence[Kept]]
) -> None:
    """Write down what something needs. Files are on the disk for good before, but for what an open exchange sends.

    Raises:
        NotThere: a blob is not there.
    """
    everything = [one for some in kept.values() for one in some]
    if not everything:
        return
    add(connection, blobs, everything)
    blobs.settle(one for kind, some in kept.items() if kind != "exchange" for one in some)
    rows: list[dict[str, object]] = []
    for kind, some in kept.items():
        digests = dict.fromkeys(one.digest for one in some)
        if not digests:
            continue
        there = set(connection.execute(_NAMED, {"run": run, "kind": kind, "number": number}).scalars())
        rows += [{"run": run, "kind": kind, "number": number, "digest": d} for d in digests if d not in there]
    if rows:
        connection.execute(_NAME, rows)


def forget(
    connection: Connection, run: str, *kinds: Holding, upto: int | None = None, since: int | None = None
) -> None:
    """What these need of a run is not needed any more.

    Args:
        connection: in a transaction.
        run: which.
        kinds: of what needed it.
        upto: only what has this number or a lower one.
        since: only what has this number or a higher one.
    """
    found = delete(reference).where(reference.c.run == run, reference.c.kind.in_(kinds))
    if upto is not None:
        found = found.where(reference.c.number <= upto)
    if since is not None:
        found = found.where(reference.c.number >= since)
    connection.execute(found)


__all__ = ["add", "forget", "name"]

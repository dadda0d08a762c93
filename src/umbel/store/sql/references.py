"""Who needs which blob."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, Insert, Table, and_, bindparam, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from umbel.errors import NotThere
from umbel.store.sql.blobs import ServerBlobs
from umbel.store.sql.tables import blob, reference
from umbel.store.sql.values import Holding, Kept

_IS_THERE = select(blob.c.digest).where(blob.c.digest == bindparam("digest"))


def _if_new(table: Table) -> dict[str, Insert]:
    """A row that is there stays; by the dialect's name."""
    return {
        "sqlite": sqlite.insert(table).on_conflict_do_nothing(),
        "postgresql": postgresql.insert(table).on_conflict_do_nothing(),
    }


_ADD, _NAME = _if_new(blob), _if_new(reference)


_OF_A_ROUND = delete(reference).where(
    reference.c.run == bindparam("id"),
    or_(
        reference.c.kind == "record",
        and_(reference.c.kind.in_(["exchange", "answer"]), reference.c.number <= bindparam("upto")),
        and_(reference.c.kind == "commit", reference.c.number < bindparam("before")),
    ),
)


def name(
    connection: Connection, blobs: ServerBlobs, run: str, number: int, kept: Mapping[Holding, Sequence[Kept]]
) -> None:
    """Write down what something needs. Files are on the disk for good before, but for what an open exchange sends.

    Raises:
        NotThere: a blob is not there.
    """
    everything = {one.digest: one for some in kept.values() for one in some}
    if not everything:
        return
    rows = [
        {"digest": one.digest, "size": one.size, "content": one.content}
        for one in everything.values()
        if one.content is not None or _is_file(connection, blobs, one.digest)
    ]
    if rows:
        connection.execute(_ADD[connection.dialect.name], rows)
    blobs.settle(one for kind, some in kept.items() if kind != "exchange" for one in some)
    names: list[dict[str, object]] = [
        {"run": run, "kind": kind, "number": number, "digest": digest}
        for kind, some in kept.items()
        for digest in dict.fromkeys(one.digest for one in some)
    ]
    connection.execute(_NAME[connection.dialect.name], names)


def _is_file(connection: Connection, blobs: ServerBlobs, digest: str) -> bool:
    """Is it in a file, and not in a row?"""
    if blobs.path(digest).is_file():
        return True
    if connection.execute(_IS_THERE, {"digest": digest}).first() is None:
        raise NotThere(f"blob {digest[:12]} is not here any more", advice="send it, then what names it")
    return False


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


def forget_round(connection: Connection, run: str, *, sequence: int, before: int) -> None:
    """A round is committed: what only led to it is not needed any more.

    Args:
        connection: in a transaction.
        run: which.
        sequence: of its last exchange.
        before: the round of the commit before, which is kept; what older ones needed goes.
    """
    connection.execute(_OF_A_ROUND, {"id": run, "upto": sequence, "before": before})


__all__ = ["forget", "forget_round", "name"]

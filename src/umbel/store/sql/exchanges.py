"""Exchanges and rounds: each function is one transaction's worth.

An exchange is here from when it is opened until its record or its commit is durable, which may be after the next one
was opened. So whatever a client was told is kept is kept, and a run that is resumed finds it. Only an exchange that
*waits* takes answers: the one that was opened last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection, and_, bindparam, delete, exists, func, insert, select, update

from umbel.store.sql import references
from umbel.store.sql.blobs import ServerBlobs
from umbel.store.sql.rows import dumped, exchange_of
from umbel.store.sql.runs import find
from umbel.store.sql.tables import answer, exchange, record, reference, round_commit, run, state
from umbel.store.sql.values import AnswerRow, CommitRow, Holding, Kept, OpenExchange, RecordRow, Verdict

_LOOK = (
    select(exchange.c.waiting, answer.c.attempt, answer.c.kind)
    .select_from(exchange)
    .outerjoin(
        answer,
        and_(
            answer.c.run == exchange.c.run,
            answer.c.sequence == exchange.c.sequence,
            answer.c.client == bindparam("client"),
        ),
    )
    .where(exchange.c.run == bindparam("run"), exchange.c.sequence == bindparam("sequence"))
)
_ANSWER = insert(answer).inline()


def open_exchange(
    connection: Connection, blobs: ServerBlobs, id: str, wanted: OpenExchange, kept: Sequence[Kept]
) -> OpenExchange:
    """Open an exchange; or go on with the stored one, if it is the same."""
    find(connection, id)
    mine = and_(exchange.c.run == id, exchange.c.sequence == wanted.sequence)
    row = connection.execute(select(exchange).where(mine)).first()
    if row is not None and row.digest == wanted.digest:
        connection.execute(update(exchange).where(mine).values(waiting=True))
        references.name(connection, blobs, id, wanted.sequence, {"exchange": kept})
        return exchange_of(row)
    _drop(connection, id, since=wanted.sequence)  # what came after it was asked because of what came out of it
    connection.execute(update(exchange).where(exchange.c.run == id).values(waiting=False))
    values = {
        "run": id,
        "sequence": wanted.sequence,
        "digest": wanted.digest,
        "opened": wanted.opened,
        "population": wanted.population,
        "roster": wanted.roster,
        "waiting": True,
    }
    connection.execute(insert(exchange), values)
    references.name(connection, blobs, id, wanted.sequence, {"exchange": kept})
    return wanted


def _drop(connection: Connection, id: str, *, since: int | None = None, upto: int | None = None) -> None:
    for table in (answer, exchange):
        found = delete(table).where(table.c.run == id)
        if since is not None:
            found = found.where(table.c.sequence >= since)
        if upto is not None:
            found = found.where(table.c.sequence <= upto)
        connection.execute(found)
    references.forget(connection, id, "exchange", "answer", since=since, upto=upto)


def accept(
    connection: Connection, blobs: ServerBlobs, id: str, sequence: int, given: AnswerRow, *, kept: Sequence[Kept]
) -> Verdict:
    """Take a client's answer, once."""
    place = {"run": id, "sequence": sequence}
    found = connection.execute(_LOOK, {**place, "client": given.client}).first()
    if found is None or not found.waiting:
        return "late"
    if found.attempt is not None:
        if found.kind != "failure" or given.attempt <= found.attempt:
            return "repeated"
        same = answer.c.run == id, answer.c.sequence == sequence, answer.c.client == given.client
        connection.execute(delete(answer).where(*same))
    values = {
        **place,
        "client": given.client,
        "attempt": given.attempt,
        "kind": given.kind,
        "content": given.content,
        "blobs": dumped(list(given.blobs)),
        "state": given.state,
        "arrived": given.arrived,
    }
    connection.execute(_ANSWER, values)
    if kept:
        references.name(connection, blobs, id, sequence, {"answer": kept})
    return "accepted"


def add_record(
    connection: Connection,
    blobs: ServerBlobs,
    id: str,
    given: RecordRow,
    *,
    states: Collection[str],
    kept: Sequence[Kept],
) -> None:
    """An exchange is finished: keep what came out of it, and let go of its answers."""
    find(connection, id)
    last = connection.execute(select(func.max(round_commit.c.sequence)).where(round_commit.c.run == id)).scalar()
    there = select(record.c.run).where(record.c.run == id, record.c.sequence == given.sequence)
    if connection.execute(there).first() is not None or (last is not None and given.sequence <= last):
        return
    values = {"run": id, "sequence": given.sequence, "round": given.round, "call": given.call, "content": given.content}
    connection.execute(insert(record), values)
    references.name(connection, blobs, id, given.sequence, {"record": kept})
    _close(connection, id, given.sequence, {given.sequence: states})


def add_commit(
    connection: Connection,
    blobs: ServerBlobs,
    id: str,
    given: CommitRow,
    *,
    states: Mapping[int, Collection[str]],
    kept: Mapping[Holding, Sequence[Kept]],
) -> None:
    """A round is finished: keep it, and let go of what only led to it."""
    find(connection, id)
    last = connection.execute(select(func.max(round_commit.c.round)).where(round_commit.c.run == id)).scalar()
    if last is not None and given.round <= last:
        return
    _lighten(connection, id, given, last)
    values = {name: getattr(given, name) for name in ("round", "sequence", "content", "clients", "state")}
    connection.execute(insert(round_commit), {"run": id, **values})
    connection.execute(update(run).where(run.c.id == id).values(round=given.round))
    if kept.get("best"):
        references.forget(connection, id, "best")
    references.forget(connection, id, "record")
    references.name(connection, blobs, id, given.round, kept)
    connection.execute(delete(record).where(record.c.run == id))
    _close(connection, id, given.sequence, states)
    _keep_newest_states(connection, id)


def _lighten(connection: Connection, id: str, given: CommitRow, last: int | None) -> None:
    """Of the commits before only the last one's state is kept, and only the last evaluation's metrics."""
    if last is None:
        return
    before = round_commit.c.run == id, round_commit.c.round < last, round_commit.c.state.is_not(None)
    connection.execute(update(round_commit).where(*before).values(state=None))
    references.forget(connection, id, "commit", upto=last - 1)
    if given.clients is not None:
        evaluated = round_commit.c.run == id, round_commit.c.clients.is_not(None)
        connection.execute(update(round_commit).where(*evaluated).values(clients=None))


def _close(connection: Connection, id: str, upto: int, states: Mapping[int, Collection[str]]) -> None:
    """Exchanges are over; the states of these clients, by exchange, count from now on."""
    told = select(answer.c.sequence, answer.c.client).where(
        answer.c.run == id, answer.c.sequence <= upto, answer.c.state.is_(True)
    )
    counted = {sequence: frozenset(clients) for sequence, clients in states.items()}
    rows = [
        {"run": id, "client": client, "sequence": sequence}
        for sequence, client in connection.execute(told)
        if client in counted.get(sequence, ())
    ]
    if rows:
        connection.execute(insert(state), rows)
    _drop(connection, id, upto=upto)


def _keep_newest_states(connection: Connection, id: str) -> None:
    newer = state.alias("newer")
    later = exists().where(
        newer.c.run == state.c.run, newer.c.client == state.c.client, newer.c.sequence > state.c.sequence
    )
    connection.execute(delete(state).where(state.c.run == id, later))


def best(connection: Connection, id: str) -> str | None:
    """The digest of the best model so far."""
    found = select(reference.c.digest).where(reference.c.run == id, reference.c.kind == "best")
    return connection.execute(found).scalar()


__all__ = ["accept", "add_commit", "add_record", "best", "open_exchange"]

"""Exchanges and rounds: each function is one transaction's worth.

An exchange is here from when it is opened until its record or its commit is durable, which may be after the next one
was opened. So whatever a client was told is kept is kept, and a run that is resumed finds it. Only an exchange that
*waits* takes answers: the one that was opened last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import BindParameter, Connection, and_, bindparam, delete, exists, func, insert, select, update

from umbel.store.sql import references
from umbel.store.sql.blobs import ServerBlobs
from umbel.store.sql.rows import dumped, exchange_of
from umbel.store.sql.runs import check_there
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
_ID: BindParameter[str] = bindparam("of")
_SEQUENCE: BindParameter[int] = bindparam("upto")  # not what columns are called: those would be what is written
_ANSWER, _EXCHANGE, _RECORD = (insert(table).inline() for table in (answer, exchange, record))
_COMMIT, _STATE = insert(round_commit).inline(), insert(state).inline()
_FROM = select(exchange).where(exchange.c.run == _ID, exchange.c.sequence >= bindparam("since"))
_WAIT_NO_MORE = update(exchange).where(exchange.c.run == _ID, exchange.c.waiting.is_(True)).values(waiting=False)
_WAIT_AGAIN = (
    update(exchange).where(exchange.c.run == _ID, exchange.c.sequence == bindparam("since")).values(waiting=True)
)
_DROP_FROM = [
    delete(table).where(table.c.run == _ID, table.c.sequence >= bindparam("since")) for table in (answer, exchange)
]
_DROP_UPTO = [delete(table).where(table.c.run == _ID, table.c.sequence <= _SEQUENCE) for table in (answer, exchange)]
_LAST = select(func.max(round_commit.c.round), func.max(round_commit.c.sequence)).where(round_commit.c.run == _ID)
_IS_RECORDED = select(record.c.run).where(record.c.run == _ID, record.c.sequence == _SEQUENCE)
_FORGET_RECORDS = delete(record).where(record.c.run == _ID)
_TOLD = select(answer.c.sequence, answer.c.client).where(
    answer.c.run == _ID, answer.c.sequence <= _SEQUENCE, answer.c.state.is_(True)
)
_DONE = update(run).where(run.c.id == _ID).values(round=bindparam("last"))
_WITHOUT_STATE = (
    update(round_commit)
    .where(round_commit.c.run == _ID, round_commit.c.round < bindparam("before"), round_commit.c.state.is_not(None))
    .values(state=None)
)
_WITHOUT_CLIENTS = (
    update(round_commit).where(round_commit.c.run == _ID, round_commit.c.clients.is_not(None)).values(clients=None)
)
_NEWER = state.alias("newer")
_OLD_STATES = delete(state).where(
    state.c.run == _ID,
    exists().where(
        _NEWER.c.run == state.c.run, _NEWER.c.client == state.c.client, _NEWER.c.sequence > state.c.sequence
    ),
)
_SAME_ANSWER = delete(answer).where(
    answer.c.run == _ID, answer.c.sequence == _SEQUENCE, answer.c.client == bindparam("whose")
)


def open_exchange(
    connection: Connection, blobs: ServerBlobs, id: str, wanted: OpenExchange, kept: Sequence[Kept]
) -> OpenExchange:
    """Open an exchange; or go on with the stored one, if it is the same."""
    check_there(connection, id)
    place = {"of": id, "since": wanted.sequence}
    there = connection.execute(_FROM, place).all()
    same = next((row for row in there if row.sequence == wanted.sequence and row.digest == wanted.digest), None)
    if same is not None:
        connection.execute(_WAIT_AGAIN, place)
        references.name(connection, blobs, id, wanted.sequence, {"exchange": kept})
        return exchange_of(same)
    if there:  # what came after it was asked because of what came out of it
        for statement in _DROP_FROM:
            connection.execute(statement, place)
        references.forget(connection, id, "exchange", "answer", since=wanted.sequence)
    connection.execute(_WAIT_NO_MORE, place)
    values = {
        "run": id,
        "sequence": wanted.sequence,
        "digest": wanted.digest,
        "opened": wanted.opened,
        "population": wanted.population,
        "roster": wanted.roster,
        "waiting": True,
    }
    connection.execute(_EXCHANGE, values)
    references.name(connection, blobs, id, wanted.sequence, {"exchange": kept})
    return wanted


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
        connection.execute(_SAME_ANSWER, {"of": id, "upto": sequence, "whose": given.client})
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
    check_there(connection, id)
    _, last = connection.execute(_LAST, {"of": id}).one()
    there = connection.execute(_IS_RECORDED, {"of": id, "upto": given.sequence}).first()
    if there is not None or (last is not None and given.sequence <= last):
        return
    values = {"run": id, "sequence": given.sequence, "round": given.round, "call": given.call, "content": given.content}
    connection.execute(_RECORD, values)
    references.name(connection, blobs, id, given.sequence, {"record": kept})
    references.forget(connection, id, "exchange", "answer", upto=given.sequence)
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
    check_there(connection, id)
    last, _ = connection.execute(_LAST, {"of": id}).one()
    if last is not None and given.round <= last:
        return
    if last is not None:  # of the commits before only the last one's state is kept, and the last evaluation's metrics
        connection.execute(_WITHOUT_STATE, {"of": id, "before": last})
        if given.clients is not None:
            connection.execute(_WITHOUT_CLIENTS, {"of": id})
    values = {name: getattr(given, name) for name in ("round", "sequence", "content", "clients", "state")}
    connection.execute(_COMMIT, {"run": id, **values})
    connection.execute(_DONE, {"of": id, "last": given.round})
    references.forget_round(connection, id, sequence=given.sequence, before=last or 0)
    if kept.get("best"):
        references.forget(connection, id, "best")
    references.name(connection, blobs, id, given.round, kept)
    connection.execute(_FORGET_RECORDS, {"of": id})
    _close(connection, id, given.sequence, states)
    connection.execute(_OLD_STATES, {"of": id})


def _close(connection: Connection, id: str, upto: int, states: Mapping[int, Collection[str]]) -> None:
    """Exchanges are over; the states of these clients, by exchange, count from now on."""
    place = {"of": id, "upto": upto}
    counted = {sequence: frozenset(clients) for sequence, clients in states.items()}
    rows = [
        {"run": id, "client": client, "sequence": sequence}
        for sequence, client in connection.execute(_TOLD, place)
        if client in counted.get(sequence, ())
    ]
    if rows:
        connection.execute(_STATE, rows)
    for statement in _DROP_UPTO:
        connection.execute(statement, place)


def best(connection: Connection, id: str) -> str | None:
    """The digest of the best model so far."""
    found = select(reference.c.digest).where(reference.c.run == id, reference.c.kind == "best")
    return connection.execute(found).scalar()


__all__ = ["accept", "add_commit", "add_record", "best", "open_exchange"]

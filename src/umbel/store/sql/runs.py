"""What is done to runs: each function is one transaction's worth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, false, func, insert, literal, or_, select, update

from umbel.errors import NotThere, Rejected
from umbel.store.sql import references
from umbel.store.sql.blobs import ServerBlobs
from umbel.store.sql.people import note
from umbel.store.sql.rows import plain, run_of, run_values
from umbel.store.sql.tables import OF_A_RUN, answer, event, exchange, record, round_commit, run, state
from umbel.store.sql.values import ACTIVE, Kept, RunRow, Status

_IS_THERE = select(run.c.id).where(run.c.id == bindparam("id"))
_EVENT = insert(event)
_BEGINNING, _ID = 4, 32  # characters of an id that stand for it, and of all of it
WITHOUT_SUBMISSION = [*(c for c in run.c if c is not run.c.submission), literal("").label("submission")]
"""The columns of a run, but for what may be large."""


def find(connection: Connection, id: str) -> RunRow:
    """The run with this id.

    Raises:
        NotThere: there is none.
    """
    row = connection.execute(select(run).where(run.c.id == id)).first()
    if row is None:
        raise NotThere(f"there is no run {id[:8]!r}", advice="umbel ls lists them; it may have been removed")
    return run_of(row)


def ids(connection: Connection, name: str) -> list[str]:
    """The id that is this; or those of the runs that are called so, and those that begin so."""
    may_begin = _BEGINNING <= len(name) <= _ID  # SQLite fails where a pattern is very long
    begins = run.c.id.startswith(name, autoescape=True) if may_begin else false()
    for condition in (run.c.id == name, or_(run.c.name == name, begins)):
        found = connection.execute(select(run.c.id).where(condition).order_by(run.c.submitted, run.c.id))
        if some := [*found.scalars()]:
            return some
    return []


def submit(connection: Connection, now: float, blobs: ServerBlobs, wanted: RunRow, kept: Sequence[Kept]) -> RunRow:
    """Take a run in; one that is there with the same key of the same owner is given back as it is."""
    row = connection.execute(select(run).where(run.c.owner == wanted.owner, run.c.key == wanted.key)).first()
    if row is not None:
        return run_of(row)
    if connection.execute(select(run.c.id).where(run.c.id == wanted.id)).first() is not None:
        raise Rejected(f"there is a run {wanted.id[:8]} already", advice="give it another id")
    connection.execute(insert(run), run_values(wanted))
    references.name(connection, blobs, wanted.id, 0, {"submission": kept})
    note(connection, now, wanted.owner, "run-submitted", target=wanted.id, details={"name": wanted.name})
    return wanted


def set_status(
    connection: Connection,
    now: float,
    id: str,
    *,
    status: Status,
    reason: str,
    rounds: int | None,
    round: int | None,  # the field's word
    by: str,
) -> RunRow:
    """Where a run stands now."""
    before = find(connection, id)
    changes: dict[str, Any] = {"status": status, "reason": plain(reason)}
    if before.status not in ACTIVE and status in ACTIVE:
        _ask_again(connection, id, now, failed=before.status == "failed")
    if status in ACTIVE:
        changes["ended"] = 0.0
        if status != "queued" and not before.started:
            changes["started"] = now
    elif not before.ended:
        changes["ended"] = now
    if round is not None:
        changes["round"] = round
    if rounds is not None:
        changes["rounds"] = rounds
        if before.rounds is not None and rounds != before.rounds:
            _forget_behind(connection, id, before.rounds)
    connection.execute(update(run).where(run.c.id == id).values(**changes))
    if by:
        action = "run-resumed" if status == "queued" else f"run-{status}"
        note(connection, now, by, action, target=id, details={} if rounds is None else {"rounds": rounds})
    return find(connection, id)


def _forget_behind(connection: Connection, id: str, rounds: int) -> None:
    """What was asked behind the last round does not count when the run goes on with more."""
    behind = record.c.run == id, record.c.round > rounds
    first = connection.execute(select(func.min(record.c.sequence)).where(*behind)).scalar()
    if first is None:
        return
    connection.execute(delete(record).where(*behind))
    references.forget(connection, id, "record", since=first)
    connection.execute(delete(state).where(state.c.run == id, state.c.sequence >= first))


def _ask_again(connection: Connection, id: str, now: float, *, failed: bool) -> None:
    """A run goes on: what it had not closed has its whole time once more, and whoever made it fail is asked again.

    If it had asked several cohorts, one after the other, all are asked again: nodes keep no states but those that
    belong to their last answers.
    """
    connection.execute(update(exchange).where(exchange.c.run == id).values(opened=now))
    if not failed:
        return
    several = len(connection.execute(select(exchange.c.sequence).where(exchange.c.run == id)).all()) > 1
    if several:
        connection.execute(delete(exchange).where(exchange.c.run == id))
        references.forget(connection, id, "exchange", "answer")
    connection.execute(delete(answer).where(answer.c.run == id, *([] if several else [answer.c.kind == "failure"])))


def remove(connection: Connection, now: float, id: str, by: str) -> None:
    """Forget a run and all that belongs to it."""
    found = find(connection, id)
    if found.status in ACTIVE:
        raise Rejected(f"run {id[:8]} is {found.status}", advice=f"stop it first: umbel stop {id[:8]}")
    for table in OF_A_RUN:
        connection.execute(delete(table).where(table.c.run == id))
    connection.execute(delete(run).where(run.c.id == id))
    note(
        connection,
        now,
        by,
        "run-removed",
        target=id,
        details={"name": found.name, "owner": found.owner, "round": found.round},
    )


def check_there(connection: Connection, id: str) -> None:
    """Refuse what is about a run that is not there.

    Raises:
        NotThere: so it is.
    """
    if connection.execute(_IS_THERE, {"id": id}).first() is None:
        raise NotThere(f"there is no run {id[:8]!r}", advice="it may have been removed")


def add_event(connection: Connection, now: float, id: str, kind: str, content: Mapping[str, Any]) -> int:
    """Something happened in a run."""
    check_there(connection, id)
    text = json.dumps(dict(content))  # in its order, in which people read it as it comes, too
    done = connection.execute(_EVENT, {"run": id, "time": now, "kind": kind, "content": text})
    key = done.inserted_primary_key
    assert key is not None
    return int(key[0])


def keep_last(connection: Connection) -> None:
    """Of runs that have ended only the last commit can still be needed."""
    last = func.max(round_commit.c.round)
    several = (
        select(round_commit.c.run, last)
        .join(run, run.c.id == round_commit.c.run)
        .where(run.c.status.not_in(ACTIVE), round_commit.c.state.is_not(None))
        .group_by(round_commit.c.run)
        .having(func.count() > 1)
    )
    for id, newest in connection.execute(several).all():
        older = round_commit.c.run == id, round_commit.c.round < newest
        connection.execute(update(round_commit).where(*older).values(state=None))
        references.forget(connection, id, "commit", upto=newest - 1)


__all__ = ["add_event", "check_there", "find", "keep_last", "remove", "set_status", "submit"]

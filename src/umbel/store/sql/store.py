"""The server's store: what is to be remembered over the end of the process, by intent.

Everything that writes gives a future, which is done when the change is durable. Each is one transaction; what comes
together is committed together (`umbel.store.sql.writer`). Reads see what is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, final, overload

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from umbel.store.sql import exchanges, people, retention, runs, tables
from umbel.store.sql.blobs import ServerBlobs
from umbel.store.sql.errors import readable
from umbel.store.sql.opening import check_turn, open_database, prepare
from umbel.store.sql.reading import Reader
from umbel.store.sql.rows import (
    answer_of,
    audit_of,
    dumped,
    event_of,
    exchange_of,
    node_of,
    plain,
    run_of,
    ticket_of,
    token_of,
)
from umbel.store.sql.schema import Schema
from umbel.store.sql.values import (
    AnswerRow,
    AuditRow,
    CommitRow,
    EventRow,
    Holding,
    Kept,
    NodeRow,
    OpenExchange,
    RecordRow,
    RunRow,
    Status,
    Swept,
    TicketRow,
    TokenRow,
    Verdict,
)
from umbel.store.sql.writer import GroupWriter, Work

T = TypeVar("T")
R = TypeVar("R")
_NONE: Mapping[Any, Any] = MappingProxyType({})
_LAST = (1 << 63) - 1  # the highest number that databases count to


@final
class ServerStore:
    """The durable state of one server. Any thread may call it.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://USER@HOST/NAME``; "": ``umbel.sqlite`` in the directory. The schema is
            made, or brought up to date.
        directory: for blobs; made if it is not there.
        now: seconds since 1970.

    Attributes:
        blobs: the blobs.
        federation: who we are: 32 hex digits, drawn when the database was made.

    Raises:
        InUse: another process has the database or the directory.
        NewerSchema: a newer version of Umbel wrote it; nothing was changed.
        CorruptFile: it is damaged.
        StoreError: it cannot be opened, or does not belong to the directory.
        UsageError: the address makes no sense.
    """

    def __init__(self, url: str, directory: Path, *, now: Callable[[], float]) -> None:
        self._now, self.directory = now, directory
        steps = Schema()
        with ExitStack() as opened:
            self._database = open_database(url, directory, steps)
            opened.callback(self._database.close)
            try:
                connection = self._database.claim()
                opened.callback(connection.close)
                self.federation, turn = prepare(connection, self._database, steps, directory=directory, now=now())
                opened.pop_all()
            except SQLAlchemyError as error:
                raise readable(error, self._database.name) from error
        check = partial(check_turn, turn=turn, name=self._database.name)
        self._writer = GroupWriter(self._database, connection, check)
        self._read = Reader(self._database)
        self.blobs = ServerBlobs(directory, self._read, now)
        self._sweeper = retention.Sweeper(self._writer.submit, self._read, self.blobs)

    @property
    def broken(self) -> Exception | None:
        """Why nothing can be written any more: another server took the database. None: all is well."""
        return self._writer.broken

    def hurry(self) -> None:
        """Wait no more for a database that is away: what cannot be written at once fails. This process is to end."""
        self._writer.hurry()

    def close(self) -> None:
        """Write what waits, and let go of the database and the directory."""
        try:
            self._writer.close()
            self._sweeper.close()
        finally:
            self.blobs.close()
            self._database.close()

    @overload
    def _write(self, work: Work[T]) -> Future[T]: ...
    @overload
    def _write(self, work: Work[T], then: Callable[[T], R]) -> Future[R]: ...
    def _write(self, work: Work[Any], then: Callable[[Any], Any] | None = None) -> Future[Any]:
        return self._writer.submit(work, then)

    def _named(
        self, kept: Mapping[Holding, Sequence[Kept]], then: Callable[[], object] = lambda: None
    ) -> Callable[[T], T]:
        """What is to be done when these are named for good."""

        def durable(result: T) -> T:
            self.blobs.named(one.digest for some in kept.values() for one in some)
            then()
            return result

        return durable

    # --- nodes and people --------------------------------------------------------------------

    def enrol(self, secret: bytes, node: NodeRow) -> Future[NodeRow]:
        """Take a node in, and use the ticket up by one. The same name and key again give the same, and use up nothing.

        Args:
            secret: SHA-256 of the ticket's secret.
            node: who comes.

        Raises:
            Unauthenticated: the ticket is unknown, used up, expired or revoked.
            Rejected: the name is that of a node with another key, or the key that of a node with another name.
            NotAllowed: the node was revoked.
        """
        return self._write(lambda c: people.enrol(c, self._now(), secret, node))

    def check_ticket(self, secret: bytes) -> None:
        """Refuse a ticket with which no node can join; nothing of it is used up.

        Args:
            secret: SHA-256 of the ticket's secret.

        Raises:
            Unauthenticated: it is unknown, used up, expired or revoked.
        """
        self._read(lambda c: people.check_ticket(c, self._now(), secret))

    def change_node(
        self,
        name: str,
        *,
        rename: str | None = None,
        labels: Mapping[str, str] | None = None,
        revoked: bool | None = None,
        seen: float | None = None,
        program: str | None = None,
        connected: bool | None = None,
        by: str = "",
    ) -> Future[NodeRow]:
        """Change what is known of a node.

        Args:
            name: which.
            rename: the new name.
            labels: the new labels, all of them.
            revoked: may it no longer come?
            seen: seconds since 1970.
            program: what runs there.
            connected: it has come, or gone.
            by: who does it; "": the node itself.

        Raises:
            NotThere: there is no such node.
            Rejected: the new name is taken.
        """
        details: dict[str, Any] = {
            "rename": rename,
            "labels": None if labels is None else dict(labels),
            "revoked": revoked,
        }
        changes = {
            "name": rename,
            "labels": None if labels is None else dumped(dict(labels)),
            "revoked": revoked,
            "seen": seen,
            "program": None if program is None else plain(program),
            "connected": connected,
        }
        changes, details = _given(changes), _given(details)
        return self._write(lambda c: people.change_node(c, self._now(), name, changes=changes, details=details, by=by))

    def nodes(self) -> list[NodeRow]:
        """All nodes, by name."""
        return self._read(lambda c: [*map(node_of, c.execute(select(tables.node).order_by(tables.node.c.name)))])

    def keep_ticket(self, ticket: TicketRow, by: str) -> Future[None]:
        """Make a ticket."""
        return self._write(lambda c: people.keep_ticket(c, self._now(), ticket, by))

    def keep_token(self, token: TokenRow, by: str) -> Future[None]:
        """Make a token; `Rejected` if there is a valid one of that name."""
        return self._write(lambda c: people.keep_token(c, self._now(), token, by))

    def revoke(self, kind: Literal["ticket", "token"], id: str, by: str) -> Future[None]:
        """Take a ticket or a token back; `NotThere` if there is none."""
        return self._write(lambda c: people.revoke(c, self._now(), kind, id, by))

    def tickets(self) -> list[TicketRow]:
        """All tickets, by id."""
        return self._read(lambda c: [*map(ticket_of, c.execute(select(tables.ticket).order_by(tables.ticket.c.id)))])

    def tokens(self) -> list[TokenRow]:
        """All tokens, by name."""
        return self._read(lambda c: [*map(token_of, c.execute(select(tables.token).order_by(tables.token.c.name)))])

    def token(self, secret: bytes) -> TokenRow | None:
        """The token whose secret has this SHA-256; None: there is none.

        Raises:
            Unauthenticated: it has expired, or was revoked.
        """
        return self._read(lambda c: people.token(c, self._now(), secret))

    def audit(self, who: str, action: str, target: str, details: Mapping[str, Any] = _NONE) -> Future[None]:
        """Write down who did what, where nothing else here does."""
        return self._write(lambda c: people.note(c, self._now(), who, action, target=target, details=details))

    def audited(self, since: int = 0, limit: int = 1000) -> list[AuditRow]:
        """Who did what, after an entry."""
        after = tables.audit.c.number > min(since, _LAST)
        found = select(tables.audit).where(after).order_by(tables.audit.c.number).limit(limit)
        return self._read(lambda c: [*map(audit_of, c.execute(found))])

    # --- runs --------------------------------------------------------------------------------

    def submit(self, run: RunRow, blobs: Sequence[Kept] = ()) -> Future[RunRow]:
        """Take a run in; one that is there with the same key of the same owner is given back as it is."""
        return self._write(
            lambda c: runs.submit(c, self._now(), self.blobs, run, blobs), self._named({"submission": blobs})
        )

    def set_status(
        self,
        run: str,
        status: Status,
        reason: str = "",
        *,
        rounds: int | None = None,
        round: int | None = None,  # the field's word
        by: str = "",
    ) -> Future[RunRow]:
        """Where a run stands now. With another number of rounds, what was asked behind the last one is forgotten.

        Args:
            run: which.
            status: where it stands.
            reason: why, or for whom it waits.
            rounds: how many it is to have.
            round: the last one that is done; a commit says so by itself.
            by: which person does it; goes into the audit trail.

        Raises:
            NotThere: there is no such run.
        """
        return self._write(
            lambda c: runs.set_status(
                c, self._now(), run, status=status, reason=reason, rounds=rounds, round=round, by=by
            )
        )

    def runs(self, *, submissions: bool = True) -> list[RunRow]:
        """All runs, in the order they were submitted.

        Args:
            submissions: with what was submitted; else that is "": it may be large.
        """
        columns = tables.run.c if submissions else runs.WITHOUT_SUBMISSION
        found = select(*columns).order_by(tables.run.c.submitted, tables.run.c.id)
        return self._read(lambda c: [*map(run_of, c.execute(found))])

    def run(self, id: str) -> RunRow:
        """The run with this id.

        Raises:
            NotThere: there is none.
        """
        return self._read(lambda c: runs.find(c, id))

    def run_ids(self, name: str) -> list[str]:
        """The id that is this; or those of runs that are called so, or begin so, if these are 4 characters or more."""
        return self._read(lambda c: runs.ids(c, name))

    def remove_run(self, run: str, by: str) -> Future[None]:
        """Forget a run and all that belongs to it.

        Raises:
            Rejected: it has not ended.
            NotThere: there is no such run.
        """
        return self._write(lambda c: runs.remove(c, self._now(), run, by))

    def event(self, run: str, kind: str, content: Mapping[str, Any] = _NONE) -> Future[int]:
        """Something happened in a run; gives the number."""
        return self._write(lambda c: runs.add_event(c, self._now(), run, kind, content))

    def events(self, run: str, since: int = 0, limit: int = 1000) -> list[EventRow]:
        """What happened in a run, after an event."""
        table = tables.event
        after = table.c.number > min(since, _LAST)
        found = select(table).where(table.c.run == run, after).order_by(table.c.number).limit(limit)
        return self._read(lambda c: [*map(event_of, c.execute(found))])

    # --- exchanges ---------------------------------------------------------------------------

    def open_exchange(self, run: str, exchange: OpenExchange, blobs: Sequence[Kept] = ()) -> Future[OpenExchange]:
        """Open an exchange; or go on with the stored one, if its sequence and digest are the same.

        With another digest it takes the place of the stored one, whose answers go, and so do exchanges that came after
        it. Exchanges before it take no more answers; they stay until their record or commit is durable.

        Args:
            run: whose.
            exchange: what is asked.
            blobs: what is sent; it need not outlive a loss of power.
        """
        return self._write(
            lambda c: exchanges.open_exchange(c, self.blobs, run, exchange, blobs),
            self._named({"exchange": blobs}),
        )

    def accept(self, run: str, sequence: int, answer: AnswerRow, blobs: Sequence[Kept] = ()) -> Future[Verdict]:
        """Take a client's answer, once.

        Gives "accepted"; "repeated", if this client has answered, and not failed in an earlier attempt; or "late", if
        the exchange takes no answers (any more).

        Raises:
            NotThere: one of the blobs is not here.
        """
        return self._write(
            lambda c: exchanges.accept(c, self.blobs, run, sequence, answer, kept=blobs),
            lambda verdict: self._named({"answer": blobs})(verdict) if verdict == "accepted" else verdict,
        )

    def answers(self, run: str, sequence: int) -> list[AnswerRow]:
        """The answers of an exchange that is not closed, in the order of their arrival."""
        table = tables.answer
        found = select(table).where(table.c.run == run, table.c.sequence == sequence).order_by(table.c.number)
        return self._read(lambda c: [*map(answer_of, c.execute(found))])

    def unclosed(self, run: str) -> list[OpenExchange]:
        """All exchanges that are not closed, in order: what a resumed run asks again, answers included."""
        table = tables.exchange
        found = select(table).where(table.c.run == run).order_by(table.c.sequence)
        return self._read(lambda c: [*map(exchange_of, c.execute(found))])

    def states(self, run: str) -> Mapping[str, int]:
        """By client, the exchange whose new state counts."""
        table = tables.state
        found = select(table.c.client, func.max(table.c.sequence)).where(table.c.run == run).group_by(table.c.client)
        return self._read(lambda c: {row[0]: row[1] for row in c.execute(found)})

    def record(
        self,
        run: str,
        content: str,
        *,
        round: int,  # the field's word
        call: int,
        sequence: int,
        states: Collection[str] = (),
        blobs: Sequence[Kept] = (),
    ) -> Future[None]:
        """An exchange is finished: its answers and those of earlier ones go.

        Args:
            run: whose.
            content: what came out of it, as JSON.
            round: the round.
            call: the n-th call of it.
            sequence: its number in the run; what is there already stays.
            states: who was counted; of these, those who have told of a new state go on with it.
            blobs: what the content names.
        """
        row = RecordRow(round=round, call=call, sequence=sequence, content=content)
        return self._write(
            lambda c: exchanges.add_record(c, self.blobs, run, row, states=states, kept=blobs),
            self._named({"record": blobs}),
        )

    def commit(
        self,
        run: str,
        content: str,
        *,
        round: int,  # the field's word
        sequence: int,
        clients: str | None = None,
        state: str | None = None,
        states: Mapping[int, Collection[str]] = _NONE,
        blobs: Mapping[Holding, Sequence[Kept]] = _NONE,
    ) -> Future[None]:
        """A round is finished: its records go, and so do the exchanges up to its last one. A round that is there stays.

        Args:
            run: whose.
            content: what is kept for good, as JSON.
            round: the last round in it.
            sequence: the number of its last exchange.
            clients: single clients' metrics, as JSON; those of the evaluation before go.
            state: what the run goes on with, as JSON; that of the commit before the last goes.
            states: by exchange without a record, who was counted; as in `record`.
            blobs: what it names: under "commit" for the last two commits, "best" until the next best, "opening".
        """
        row = CommitRow(round=round, sequence=sequence, content=content, clients=clients, state=state)
        return self._write(
            lambda c: exchanges.add_commit(c, self.blobs, run, row, states=states, kept=blobs),
            self._named(blobs, then=self._sweeper.sweep_if_grown),
        )

    def saved(self, run: str) -> tuple[list[CommitRow], list[RecordRow]]:
        """All commits of a run, and the records since the last one."""

        def read(connection: Connection) -> tuple[list[CommitRow], list[RecordRow]]:
            commit, record = tables.round_commit, tables.record
            commits = connection.execute(select(commit).where(commit.c.run == run).order_by(commit.c.round))
            records = connection.execute(select(record).where(record.c.run == run).order_by(record.c.sequence))
            return [*map(_commit_of, commits)], [*map(_record_of, records)]

        return self._read(read)

    def best(self, run: str) -> str | None:
        """The digest of a run's best model so far, if it keeps one."""
        return self._read(lambda c: exchanges.best(c, run))

    def names(self, run: str, digest: str) -> bool:
        """Does this run need this blob?"""
        table = tables.reference
        found = select(table.c.digest).where(table.c.run == run, table.c.digest == digest).limit(1)
        return self._read(lambda c: c.execute(found).first() is not None)

    # --- care --------------------------------------------------------------------------------

    def sweep(self, age: float = retention.HOUR) -> Future[Swept]:
        """Remove blobs that nothing names, and unfinished uploads.

        Named are: what was submitted; what an open exchange sends, and its answers; records of the open round; the last
        two commits, of a run that has ended the last one; the best model; what was asked before the first round.

        Args:
            age: seconds after which uploads go, and files that were never named.
        """
        return self._sweeper.sweep(age)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _commit_of(row: Any) -> CommitRow:
    return CommitRow(round=row.round, sequence=row.sequence, content=row.content, clients=row.clients, state=row.state)


def _record_of(row: Any) -> RecordRow:
    return RecordRow(round=row.round, call=row.call, sequence=row.sequence, content=row.content)


__all__ = ["ServerStore"]

"""One run in the server's store, as the engine sees it.

A commit is written while the run goes on, one at a time, and is durable before the next one begins. A record is
written when it is clear that no commit follows at once, which would make it needless. Nothing is lost if the process
dies before: the exchange stays open in the database, with all its answers, until its record or its commit is durable.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple, cast, final

from umbel.arrays import Arrays
from umbel.codec import Json, decode, loaded_classes
from umbel.engine.ports import Commit, Record
from umbel.store.blobs import Blobs
from umbel.store.content import Content
from umbel.store.sql.blobs import ServerBlobs
from umbel.store.sql.store import ServerStore
from umbel.store.sql.values import CommitRow, Holding, Kept
from umbel.store.writer import GoOn, Writer

# A round's own commit mostly comes so soon after its last exchange; for a large model, as soon as that is computed.
_SOON, _PACE = 0.1, 100e6  # seconds, and bytes a second
_AFTER = 0.002  # seconds; a commit is written while nodes work on what comes next, which it would only hold up before
_STATE: Mapping[str, Json] = {"state": None, "transforms": {}, "best": None}  # kept of the last commits only


@final
class At(NamedTuple):
    """Where a finished exchange stands in its run: it is the n-th call of a round, and has a number."""

    round: int  # the field's word
    call: int
    sequence: int


@final
class RunStore:
    """The engine's `Store` of one run, in the server's own process, where no user's code could write into arrays.

    Args:
        store: of the server.
        run: the run's id.
        counted: whose new states count since the last close; None: of all who were counted and have one.
    """

    def __init__(self, store: ServerStore, run: str, counted: Callable[[], Sequence[str]] | None = None) -> None:
        self._store, self._run, self._counted = store, run, counted
        self._writer, self._lock = Writer(), Lock()
        self._pending: deque[tuple[At, Content]] = deque()  # exchanges that have no record yet
        self._flushing = False  # will they be written soon?
        self._unrecorded: dict[int, tuple[str, ...]] = {}  # by exchange that has no record yet, whose state counts
        self._awaiting: list[Callable[[], object]] | None = None  # what waits for a commit; None: it is durable

    def close(self) -> None:
        """Write what waits; the server's store stays open."""
        try:
            self._writer.wait()
        finally:
            self._writer.close()

    def commits(self) -> Sequence[Commit]:
        """All commits; all but the last without their state."""
        return [Commit(**self._decoded(commit)) for commit in self.written()[0]]

    def records(self) -> Sequence[Record]:
        """The exchanges finished since the last commit."""
        return [Record(**self._decoded(record)) for record in self.written()[1]]

    def written(self) -> tuple[list[dict[str, Json]], list[dict[str, Json]]]:
        """The fields of all commits and all records, as JSON: what they hold may be of classes that are not here."""
        self._writer.wait()
        commits, records = self._store.saved(self._run)
        shown = [_fields(row, last=i == len(commits) - 1) for i, row in enumerate(commits)]
        return shown, [json.loads(row.content) for row in records]

    def best(self) -> Arrays | None:
        """The best model so far, if the run keeps one."""
        self._writer.wait()
        digest = self._store.best(self._run)
        return None if digest is None else self._store.blobs.fetch(digest)

    def record(self, record: Record) -> None:
        """Keep a finished exchange until its round commits.

        Until then its answers are in the database, so nobody has to wait for it.
        """
        states = record.answer.clients if self._counted is None else self._counted()
        self.keep_record(
            Content.of(record, "exchange", watched=False), At(record.round, record.call, record.sequence), states
        )

    def keep_record(self, content: Content, at: At, states: Sequence[str]) -> None:
        """Keep a finished exchange that is written as JSON already.

        Args:
            content: of the record.
            at: where it stands.
            states: whose new state counts since.
        """
        self._unrecorded[at.sequence] = tuple(states)
        with self._lock:
            self._pending.append((at, content))
            begun, self._flushing = self._flushing, True
        if not begun:
            self._writer.wait()
            self._writer.begin(self._flush, delay=_SOON + content.nbytes / _PACE)

    def _flush(self, go_on: GoOn) -> None:
        """Write the exchanges that have no commit yet, in their order."""
        while True:
            with self._lock:
                if not self._pending:
                    self._flushing = False
                    return
                at, content = self._pending[0]
            go_on()
            self._write_record(at, content, go_on)
            with self._lock:
                self._pending.popleft()

    def _write_record(self, at: At, content: Content, go_on: GoOn) -> None:
        kept = _Keeping(self._store.blobs)
        content.keep(cast(Blobs, kept), sync=True, go_on=go_on)
        states = self._unrecorded[at.sequence]
        self._store.record(
            self._run,
            _text(content.json),
            round=at.round,
            call=at.call,
            sequence=at.sequence,
            states=states,
            blobs=kept.all,
        ).result()
        del self._unrecorded[at.sequence]

    def mark(self, sequence: int) -> None:
        """Nothing: the last commit's states are kept until the next."""

    def commit(self, commit: Commit) -> None:
        """Keep the end of a round."""
        self.keep_commit(
            lambda: Content.of(commit, "commit", watched=False), round=commit.rows[-1].round, sequence=commit.sequence
        )

    def keep_commit(self, content: Callable[[], Content], *, round: int, sequence: int) -> None:  # the field's word
        """Keep the end of a round that is written as JSON already.

        Args:
            content: gives that of the commit, when the one before is durable.
            round: the last of its rounds.
            sequence: the number of its last exchange.
        """
        self._writer.wait(drop=True)  # the exchanges before it need not be recorded any more
        with self._lock:
            self._pending.clear()
            self._flushing = False
        states, self._unrecorded = self._unrecorded, {}
        made = content()
        self._awaiting = []
        self._writer.begin(lambda _: self._write_commit(made, round, sequence, states), delay=_AFTER, needed=True)

    def _write_commit(
        self,
        content: Content,
        round: int,
        sequence: int,
        states: Mapping[int, Sequence[str]],  # the field's word
    ) -> None:
        kept = _Keeping(self._store.blobs)
        content.keep(cast(Blobs, kept), sync=True)
        fields = dict(content.json)
        clients = fields.pop("clients")
        state = {name: fields.pop(name) for name in _STATE}
        del state["best"]  # named on its own, as long as it is the best
        named: dict[Holding, list[Kept]] = {"commit": [], "best": [], "opening": []}
        for name in content.arrays:
            holding: Holding = "best" if name == "best" else "commit" if name in _STATE else "opening"
            named[holding] += [kept[digest] for digest in content.digests(name)]
        self._store.commit(
            self._run,
            _text(fields),
            round=round,
            sequence=sequence,
            clients=_text(clients) if clients else None,
            state=_text(state),
            states=states,
            blobs=named,
        ).result()
        with self._lock:
            waiting, self._awaiting = self._awaiting or [], None
            for call in waiting:
                call()

    def then(self, call: Callable[[], object]) -> None:
        """Do something quick when the last commit is durable; in its turn, and in another thread if it is not yet."""
        with self._lock:
            if self._awaiting is None:
                call()
            else:
                self._awaiting.append(call)

    def _decoded(self, content: Mapping[str, Json]) -> dict[str, Any]:
        fetch = self._store.blobs.fetch
        return {name: decode(value, fetch, allow=loaded_classes) for name, value in content.items()}


@final
class _Keeping:
    """Blobs as `Content` keeps them; remembers which."""

    def __init__(self, blobs: ServerBlobs) -> None:
        self._blobs = blobs
        self._kept: dict[str, Kept] = {}

    def __getitem__(self, digest: str) -> Kept:
        return self._kept[digest]

    @property
    def all(self) -> list[Kept]:
        """What was kept."""
        return list(self._kept.values())

    def keep(self, arrays: Arrays, *, sync: bool, go_on: GoOn) -> str:
        """Keep arrays; gives their digest."""
        go_on()
        kept = self._blobs.keep(arrays, sync, go_on)
        self._kept[kept.digest] = kept
        return kept.digest


def _fields(row: CommitRow, *, last: bool) -> dict[str, Json]:
    fields = {**json.loads(row.content), **_STATE}
    if last and row.state is not None:
        fields |= json.loads(row.state)
    return {**fields, "clients": json.loads(row.clients) if row.clients else {}}


def _text(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"), default=Arrays.digest)


__all__ = ["At", "RunStore"]

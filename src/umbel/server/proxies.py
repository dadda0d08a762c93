"""What the engine needs from outside, in a run's own process: the server is asked for it."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from umbel.apps.frames import receive
from umbel.arrays import Arrays
from umbel.codec import Json, decode, loaded_classes
from umbel.engine.exchange import Close, Event, Failed
from umbel.engine.folding import Answered, Folding
from umbel.engine.ports import Commit, Record
from umbel.engine.question import Question
from umbel.engine.reduction import Reduced
from umbel.errors import EmptyPopulation
from umbel.link.tasks import task_of
from umbel.sample import Population
from umbel.server.contents import done_of
from umbel.server.counted import Counted
from umbel.server.messages import Message, Packing, read
from umbel.store.content import Content
from umbel.store.durable import replace_file
from umbel.wire import Blob

_LOST = 1  # exit status of a process whose server is gone, or of a fork that is none of the server's


@final
class Upward:
    """The way to the server. Only the main thread uses it.

    Args:
        connection: a socket to the server.
        handed: the directory where large arrays are handed over.
        blobs: the directory of the server's blobs.
        suffix: of their files.
    """

    def __init__(self, connection: socket.socket, handed: Path, blobs: Path, suffix: str) -> None:
        self._connection, self._handed, self._blobs, self._suffix = connection, handed, blobs, suffix
        self._known: set[str] = set()  # large arrays that the server has
        self._asking = self._interrupted = False
        self._pid = os.getpid()

    def interrupt(self) -> None:
        """The server wants the run to end where it waits, or at once if it does not wait."""
        if self._asking:
            self._interrupted = True
        else:
            raise KeyboardInterrupt

    def ask(self, what: str, value: Json = None, packing: Packing | None = None, **more: Any) -> Message:
        """Ask for something, and wait for it.

        Raises:
            KeyboardInterrupt: the run is to end.
        """
        if os.getpid() != self._pid:
            os._exit(_LOST)
        self._asking = True
        try:
            packing = packing or Packing(self._hand_over)
            answer = self._exchanged(packing.frame({"ask": what, **more}, value))
            if "missing" in answer.header:  # the server has let go of what it had
                self._known.clear()
                answer = self._exchanged(packing.anew().frame({"ask": what, **more}, value))
        finally:
            self._asking = False
        if "over" in answer.header or self._interrupted:
            self._interrupted = False
            raise KeyboardInterrupt
        return answer

    def _exchanged(self, data: bytes) -> Message:
        self._connection.sendall(data)
        return self.receive()

    def receive(self) -> Message:
        """The next message."""
        frame = receive(self._connection)
        if frame is None:
            os._exit(_LOST)
        return read(frame, self._map)

    def _map(self, digest: str, where: str) -> Arrays:
        del where  # there is one place
        self._known.add(digest)
        return Arrays.load(self._blobs / f"{digest}{self._suffix}")

    def _hand_over(self, arrays: Arrays, digest: str) -> str:
        if digest in self._known:
            return "known"
        replace_file(self._handed / digest, arrays.to_bytes(), sync=False)
        self._known.add(digest)
        return "file"

    def packing(self) -> Packing:
        """For a message with arrays that are named before it is made."""
        return Packing(self._hand_over)

    def say(self, kind: str, content: Mapping[str, Any]) -> None:
        """Tell people what happens; nothing is answered."""
        before, self._asking = self._asking, True
        try:
            self._connection.sendall(self.packing().frame({"say": kind}, dict(content)))
        finally:
            self._asking = before
        if self._interrupted and not before:
            self._interrupted = False
            raise KeyboardInterrupt

    def fetch(self, digest: str) -> Arrays:
        """A blob of the server's."""
        return self.ask("fetch", digest=digest).arrays[digest]


@final
class AskingRunner:
    """A `Runner` of the engine that asks the server, and folds here.

    Args:
        up: the way to the server.
    """

    punctual = False

    def __init__(self, up: Upward) -> None:
        self._up = up
        self._question: Question
        self._folding: Folding
        self._states = Counted()

    @property
    def spent(self) -> Mapping[str, float]:
        """Nothing is measured here."""
        return {}

    def population(self, at_least: int, wait: float) -> Population:
        """Who is there.

        Raises:
            EmptyPopulation: too few came.
        """
        answer = self._up.ask("population", at_least=at_least, wait=wait)
        if "nobody" in answer.header:
            what, advice = answer.header["nobody"]
            raise EmptyPopulation(what, advice=advice)
        labels: dict[str, Any] = answer.value
        return Population(tuple(labels), {name: own for name, own in labels.items() if own})

    def open(self, question: Question, cohort: int) -> float:
        """Begin an exchange, or go on with one."""
        packing = self._up.packing()

        def place(arrays: Arrays) -> Blob:
            digest = packing.place(arrays)
            return Blob(digest=bytes.fromhex(digest), size=len(arrays.to_bytes()))

        task = base64.b64encode(task_of(question, place).SerializeToString()).decode()
        self._question, self._states = question, Counted()
        self._folding = Folding(question, self._states)
        return float(self._up.ask("open", task, packing, sequence=question.sequence, cohort=cohort).header["opened"])

    def lease(self, tasks: Sequence[tuple[str, int]]) -> None:
        """Ask these clients."""
        self._up.ask("lease", [list(task) for task in tasks])

    def wait(self, until: float) -> Sequence[Event]:
        """Wait for what happens."""
        answer = self._up.ask("wait", until=until)
        events: list[Event] = decode(answer.value, answer.arrays.__getitem__)
        return events

    def fold(self, clients: Sequence[tuple[str, int, int]]) -> Sequence[Failed]:
        """Fold the answers of these clients."""
        answer = self._up.ask("take", [client for client, _, _ in clients])
        answered = []
        for (client, attempt, place), (content, state) in zip(clients, answer.value, strict=True):
            done = done_of(content, answer.arrays.__getitem__)
            answered.append(Answered(client, attempt, place, done, {} if state else None))
        return self._folding.fold(answered)

    def drop(self, client: str, attempt: int) -> None:
        """Throw an answer away."""
        del attempt
        self._up.ask("drop", client=client)

    def revoke(self, clients: Sequence[str]) -> None:
        """Tell these clients to stop."""
        self._up.ask("revoke", list(clients))

    def close(self, close: Close) -> Reduced:
        """The exchange is over."""
        reduced = self._folding.close(close)
        self._up.ask("close", list(self._states.clients))
        return reduced


@final
class AskingStore:
    """The engine's `Store` in a run's own process.

    Args:
        up: the way to the server.
        written: the commits and records that there are, as JSON, and the digest of the best model.
    """

    def __init__(self, up: Upward, written: Mapping[str, Any]) -> None:
        self._up, self._written = up, written

    def commits(self) -> Sequence[Commit]:
        """All commits that an earlier process has left; all but the last without their state."""
        return [Commit(**self._decoded(commit)) for commit in self._written["commits"]]

    def records(self) -> Sequence[Record]:
        """The exchanges that were finished after the last of them."""
        return [Record(**self._decoded(record)) for record in self._written["records"]]

    def best(self) -> Arrays | None:
        """The best model so far, if the run keeps one."""
        digest = self._written["best"]
        return None if digest is None else self._up.fetch(digest)

    def _decoded(self, content: Mapping[str, Json]) -> dict[str, Any]:
        return {name: decode(value, self._up.fetch, allow=loaded_classes) for name, value in content.items()}

    def record(self, record: Record) -> None:
        """Keep a finished exchange until its round commits."""
        self._send("record", Content.of(record, "exchange"), at=[record.round, record.call, record.sequence])

    def mark(self, sequence: int) -> None:
        """Nothing: the last commit's states are kept until the next."""

    def commit(self, commit: Commit) -> None:
        """Keep the end of a round."""
        self._send("commit", Content.of(commit, "commit"), round=commit.rows[-1].round, sequence=commit.sequence)

    def _send(self, what: str, content: Content, **more: Any) -> None:
        names = {field: [arrays.digest() for arrays in found] for field, found in content.arrays.items()}
        self._up.ask(what, {"content": content.json, "names": names}, **more)


__all__ = ["AskingRunner", "AskingStore", "Upward"]

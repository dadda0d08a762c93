"""One run with code of the user's, as the server sees it: its process asks, and is answered. Lives in a thread.

The process has main, folding and central evaluations; what is durable and what has to do with nodes is here. It may end
at any moment: that is as if the server had been killed, and the run goes on from what is durable.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, final

from umbel import wire
from umbel.apps.frames import Garbage, receive
from umbel.arrays import Arrays
from umbel.codec import Json, decode, encode
from umbel.engine.question import Question
from umbel.engine.submission import Submission
from umbel.errors import EmptyPopulation, Failure, FormatError, NotThere, UmbelError
from umbel.link.tasks import question_of
from umbel.server.clock import ServerClock
from umbel.server.contents import content_of
from umbel.server.desk import Desk, Interrupted
from umbel.server.installed import Installed
from umbel.server.messages import Message, Packing, read
from umbel.server.process import RunProcess
from umbel.server.run import Ended, ending
from umbel.server.runner import blob_of
from umbel.server.telling import Say, after_commits
from umbel.store.content import Content
from umbel.store.sql import RunRow, RunStore, ServerStore
from umbel.store.sql.blobs import SUFFIX
from umbel.store.sql.run import At
from umbel.wire.limits import DETAILS

_DIED = "child-died"
_RECENT = 4  # large arrays that the process is not asked for again, though they may not be on the disk yet
_CHECKED = ("expected", "extra_expected")  # of a task's details, what answers are checked against


@final
class ChildConductor:
    """Conducts one run whose main is the user's, in a process of its own.

    Args:
        run: which.
        submission: what it does.
        store: of the server.
        desk: has nodes do its tasks.
        clock: the time.
        say: tells people what happens.
        installed: the apps that are here.
        loop: the event loop.
    """

    def __init__(
        self,
        run: RunRow,
        submission: Submission,
        *,
        store: ServerStore,
        desk: Desk,
        clock: ServerClock,
        say: Say,
        installed: Installed,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._run, self._submission, self._installed = run, submission, installed
        self._server, self._desk, self._clock, self._loop = store, desk, clock, loop
        self._store = RunStore(store, run.id)
        self._say = after_commits(say, self._store.then)
        self._recent: dict[str, Arrays] = {}
        self._error: UmbelError | None = None  # what the server could not do for the run
        self._ended: Mapping[str, Any] | None = None  # as the process says
        self._process: RunProcess

    def conduct(self) -> Ended:
        """Do what is left of the run."""
        return ending(self._conduct, self._run)

    def _conduct(self) -> Ended:
        with closing(self._store):  # what was given to it last is durable before the run is said to have ended
            project = self._installed.find(self._run, self._submission.main)
            place = directory_of(self._server) / f"{self._run.id[:8]}-{secrets.token_hex(4)}"
            threads = self._submission.threads
            process = RunProcess(self._loop, place, threads=threads, print_line=self._printed)
            self._process = process
            self._desk.at_interrupt = process.interrupt
            try:
                if self._desk.interrupted is not None:  # it may have come before there was a process
                    raise self._desk.interrupted
                self._serve(process, project.source)
                return self._how(process)
            finally:
                self._desk.at_interrupt = lambda: None
                process.close()

    def _printed(self, line: str) -> None:
        self._say("output", {"client": "server", "text": line})

    def _serve(self, process: RunProcess, source: Path) -> None:
        """Answer until the process has ended, or says that the run has."""
        header = {
            "object": self._submission.main,
            "source": str(source),
            "threads": self._submission.threads,
            "rounds": self._run.rounds,
            "offset": self._clock.offset,
            "handed": str(process.handed),
            "scratch": str(process.scratch),
            "blobs": str(self._server.blobs.directory),
            "suffix": SUFFIX,
        }
        try:
            process.connection.sendall(Packing(self._place).frame(header))
            while self._ended is None and (frame := receive(process.connection)) is not None:
                try:
                    message = read(frame, self._found)
                except NotThere:
                    process.connection.sendall(Packing(self._place).frame({"missing": True}))
                    continue
                answer = self._answer(message)
                if answer is not None:
                    process.connection.sendall(answer)
        except OSError:
            return  # it has ended
        except (Garbage, FormatError) as error:
            what = f"the run's process wrote into its connection to the server: {error}"
            self._error = self._error or FormatError(what, advice="only main's own thread may use fed")

    def _how(self, process: RunProcess) -> Ended:
        """How the run ended."""
        if self._error is not None:
            raise self._error
        said = self._ended or {}
        if said.get("status") == "finished":
            return Ended("finished", str(said["reason"]))
        if self._desk.interrupted is not None:
            raise self._desk.interrupted
        if said:
            if said.get("traceback"):
                self._printed(str(said["traceback"]))
            failures = tuple(f for f in decode(said.get("failures", []), self._fetch) if isinstance(f, Failure))
            return Ended("failed", str(said["reason"]), str(said.get("code", "run")), failures)
        how, last = process.how(), process.printed().strip()
        shown = f"; the last that it printed:\n{last}" if last else ""
        advice = f"\n  What to do: what was committed is kept; mend main, then: umbel resume {self._run.id[:8]}"
        return Ended("failed", f"{how}{shown}{advice}", _DIED)

    # --- arrays ------------------------------------------------------------------------------

    def _fetch(self, digest: str) -> Arrays:
        return self._server.blobs.fetch(digest)

    def _found(self, digest: str, where: str) -> Arrays:
        """A large array: handed over now, or known from before."""
        if where == "file":
            path = self._process.handed / self._server.blobs.path(digest).stem  # refuses what is no digest
            arrays = Arrays.load(path)
            path.unlink()
        else:
            arrays = self._recent.pop(digest) if digest in self._recent else self._fetch(digest)
        self._recent[digest] = arrays
        while len(self._recent) > _RECENT:
            del self._recent[next(iter(self._recent))]
        return arrays

    def _place(self, arrays: Arrays, digest: str) -> str:
        """A large array for the process: the blob's file, which it maps."""
        del arrays
        return "blob" if self._server.blobs.path(digest).is_file() else ""

    # --- what is asked -----------------------------------------------------------------------

    def _answer(self, message: Message) -> bytes | None:
        """The answer to a message; None: there is none."""
        if "say" in message.header:
            self._say(str(message.header["say"]), message.value)
            return None
        packing = Packing(self._place)
        try:
            ask = _ASKED.get(str(message.header.get("ask")))
            if ask is None:
                raise FormatError(f"the run's process asks for {message.header.get('ask')!r:.80}")
            value, header = ask(self, message)
        except Interrupted:
            return packing.frame({"over": True})
        except UmbelError as error:
            self._error = self._error or error
            self._loop.call_soon_threadsafe(self._process.end_soon)
            return packing.frame({"over": True})
        return packing.frame(header, value)

    def _begin(self, message: Message) -> tuple[Json, dict[str, Any]]:
        del message
        commits, records = self._store.written()
        best = self._server.best(self._run.id)
        submission = json.loads(self._run.submission)
        return {"submission": submission, "commits": commits, "records": records, "best": best}, {}

    def _blob(self, message: Message) -> tuple[Json, dict[str, Any]]:
        return self._fetch(str(message.header["digest"])), {}

    def _population(self, message: Message) -> tuple[Json, dict[str, Any]]:
        header = message.header
        try:
            found = self._desk.population(int(header["at_least"]), float(header["wait"]))
        except EmptyPopulation as error:  # which main may expect
            return {}, {"nobody": [error.what, error.advice]}
        return {name: dict(found.labels.get(name, {})) for name in found.names}, {}

    def _open(self, message: Message) -> tuple[Json, dict[str, Any]]:
        task = wire.Task.FromString(base64.b64decode(message.value))
        task.id.CopyFrom(wire.TaskId(run=self._run.id, exchange=int(message.header["sequence"])))
        blobs = self._server.blobs
        kept = {d: blobs.keep_bytes(arrays.to_bytes(), d, sync=False) for d, arrays in message.arrays.items()}
        named = [task.model] if task.HasField("model") else []
        for blob in (*named, *(each.blob for each in task.extra), *task.attachments):
            blob.CopyFrom(blob_of(kept[blob.digest.hex()]))
        question = checking_of(task, lambda blob: message.arrays[blob.digest.hex()])
        cohort = int(message.header["cohort"])
        return None, {"opened": self._desk.open(question, task, list(kept.values()), cohort)}

    def _lease(self, message: Message) -> tuple[Json, dict[str, Any]]:
        self._desk.lease([(str(client), int(attempt)) for client, attempt in message.value])
        return None, {}

    def _wait(self, message: Message) -> tuple[Json, dict[str, Any]]:
        return encode(self._desk.wait(float(message.header["until"])), Arrays.digest), {}

    def _take(self, message: Message) -> tuple[Json, dict[str, Any]]:
        taken = []
        for client in message.value:
            answer = self._desk.take(client)
            assert not isinstance(answer.done, Failure)
            taken.append([content_of(answer.done, lambda arrays: arrays), answer.state])
        return taken, {}

    def _drop(self, message: Message) -> tuple[Json, dict[str, Any]]:
        self._desk.drop(str(message.header["client"]))
        return None, {}

    def _revoke(self, message: Message) -> tuple[Json, dict[str, Any]]:
        self._desk.revoke([str(client) for client in message.value])
        return None, {}

    def _close(self, message: Message) -> tuple[Json, dict[str, Any]]:
        self._desk.close()
        self._desk.count([str(client) for client in message.value])
        return None, {}

    def _record(self, message: Message) -> tuple[Json, dict[str, Any]]:
        at = At(*map(int, message.header["at"]))
        self._store.keep_record(_content(message, "exchange"), at, self._desk.counted)
        return None, {}

    def _commit(self, message: Message) -> tuple[Json, dict[str, Any]]:
        header = message.header
        self._store.keep_commit(
            lambda: _content(message, "commit"), round=int(header["round"]), sequence=int(header["sequence"])
        )
        return None, {}

    def _end(self, message: Message) -> tuple[Json, dict[str, Any]]:
        self._ended = dict(message.value)
        return None, {}


_ASKED: Mapping[str, Callable[[ChildConductor, Message], tuple[Json, dict[str, Any]]]] = {
    "begin": ChildConductor._begin,
    "fetch": ChildConductor._blob,
    "population": ChildConductor._population,
    "open": ChildConductor._open,
    "lease": ChildConductor._lease,
    "wait": ChildConductor._wait,
    "take": ChildConductor._take,
    "drop": ChildConductor._drop,
    "revoke": ChildConductor._revoke,
    "close": ChildConductor._close,
    "record": ChildConductor._record,
    "commit": ChildConductor._commit,
    "end": ChildConductor._end,
}


def _content(message: Message, name: str) -> Content:
    names = message.value["names"]
    arrays = {field: [message.arrays[digest] for digest in digests] for field, digests in names.items()}
    return Content(message.value["content"], arrays, name)


def checking_of(task: wire.Task, fetch: Callable[[wire.Blob], Arrays]) -> Question:
    """What answers to a task are checked against: the question without what may be of classes that are not here.

    Args:
        task: what all tasks of the exchange have in common.
        fetch: gives the arrays of a blob.
    """
    bare = wire.Task()
    bare.CopyFrom(task)
    bare.id.client, bare.id.attempt = "server", 1
    details = wire.from_json(task.details or "{}", "details", DETAILS)
    bare.details = wire.to_json({name: details[name] for name in _CHECKED if name in details}, "details", DETAILS)
    bare.ClearField("config")
    bare.ClearField("attachments")
    return question_of(bare, fetch)


def directory_of(store: ServerStore) -> Path:
    """Where the processes of runs have their directories."""
    return store.blobs.directory.with_name("runs")


__all__ = ["ChildConductor", "checking_of", "directory_of"]

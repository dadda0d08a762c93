"""Doing one task: judged, its blobs fetched, done in a child, and its answer kept before it leaves."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, final

from google.protobuf.message import DecodeError

from umbel import wire
from umbel.apps.frames import Frame
from umbel.arrays import Arrays
from umbel.digest import is_file_named
from umbel.errors import AppDiffers, AppError, ClientFailed, DiskFull, FormatError, UmbelError, UsageError
from umbel.link.pieces import over
from umbel.node import answers
from umbel.node.arrays_by_file import keep_file, pack_state, unpack_state
from umbel.node.cache import BlobCache, Read
from umbel.node.children import Begin, Child, ChildDied, Children, Watch, load_error
from umbel.node.config import Dataset, NodeConfig
from umbel.node.installed import InstalledApp
from umbel.node.outbox import Finished, Key, Outbox
from umbel.node.policy import blobs_of, comes_along, judge, judge_answer, pick_dataset, signatures_of
from umbel.node.shipped import ShippedApps
from umbel.node.states import NodeStates, StateLost

logger = logging.getLogger("umbel")
T = TypeVar("T")
_ABILITIES = frozenset({"transforms", "local-rule", "extra-results"})  # of `umbel.link.tasks`
_LAST = 4000  # characters that a process printed last, told instead of a traceback: of a crash, it is one
_DIGEST, _CODE = re.compile(r"[0-9a-f]{64}"), re.compile(r"[a-z][a-z-]{0,63}")
_FILES = "node {node} cannot use its own files\n  What to do: ask its owner to look at the node's disk, and at its log"
_SETTINGS = (
    "node {node} cannot read a setting of its data set\n"
    "  What to do: ask its owner to look at the node's log; `umbel doctor --config node.toml` names it there"
)
_LOST = (
    "this node no longer has the state that the client begins with (that of exchange {version})\n"
    "  What to do: restore the node's directory from a backup; or start the run over: its state has gone, as after a "
    "disk was replaced, or after the time that `states` in [limits] of node.toml says"
)


@final
class Workshop:
    """Where a node's tasks are done.

    Args:
        config: what the owner says.
        apps: what the node was started with.
        directory: the node's own.
        environment: what children find in theirs.
        now: seconds since 1970.

    Attributes:
        outbox: what is finished; called through `stored`.
    """

    def __init__(
        self,
        config: NodeConfig,
        apps: Iterable[InstalledApp],
        directory: Path,
        *,
        environment: Mapping[str, str],
        now: Callable[[], float],
    ) -> None:
        self._config = config
        self._apps = {app.app.name: app for app in apps}
        self._shipped = ShippedApps(directory / "apps", config.name)
        self._told_of: set[bytes] = set()  # apps from the server that the journal has heard of since the start
        self._inside = f"{directory}{os.sep}"  # begins the path of each file
        self._own = directory / "own"  # what nobody but the node reads
        self._own.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._cache = BlobCache(directory / "cache", most=config.limits.cache)  # first: it makes room for the others
        self.outbox = Outbox(
            self._own / "outbox", journal=directory / "journal", largest=config.limits.journal, now=now
        )
        self._states = NodeStates(self._own / "states", keep=config.limits.states, now=now)
        self._children = Children(
            directory / "children",
            environment=environment,
            warm=config.limits.warm,
            idle=config.limits.idle,
            log=_log,
        )
        self._one, self._other = (ThreadPoolExecutor(1, thread_name_prefix=f"umbel-{n}") for n in ("outbox", "states"))

    async def stored(self, call: Callable[..., T], *args: Any) -> T:
        """Call a method of the outbox; they are called one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._one, call, *args)

    async def _stated(self, call: Callable[..., T], *args: Any, **more: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._other, lambda: call(*args, **more))

    async def recovered(self) -> list[Finished]:
        """Answers of before that still count; what a loss of power has damaged is dropped."""
        await self.stored(self.outbox.sweep)
        await self._stated(self._states.sweep)
        whole = []
        for answer in await self.stored(self.outbox.waiting):
            if await self._is_whole(answer):
                whole.append(answer)
            else:
                await self.stored(self.outbox.drop, answer.key)
        return whole

    async def _is_whole(self, answer: Finished) -> bool:
        if not await self._has_state(answer):
            return False
        return await asyncio.to_thread(_are_whole, {name: self.outbox.path(answer.key, name) for name in answer.files})

    async def _has_state(self, answer: Finished) -> bool:
        """Is the state that it gave the newest one here? Later tasks may have gone back behind it."""
        run, exchange, _ = answer.key
        gives = wire.ReportRequest.FromString(answer.report).state
        return not gives or await self._stated(self._states.has, run, exchange)

    async def load(self, app: InstalledApp) -> InstalledApp:
        """Start an app once to see what it can be asked.

        Raises:
            ChildDied: its process was killed, and not by its own code.
            UmbelError: it cannot be loaded; says why.
        """
        dataset = next(iter(self._config.data.values()))
        async with self._children.child(self._begin(app, dataset, self._config.name, 0, 1)) as child:
            try:
                frame = await child.ready(self._config.limits.max_memory)
            except ChildDied as error:
                if error.retryable:
                    raise
                raise error.while_loading(app.app.name) from error
            if frame.header.get("is") != "ready":
                raise _load_error(app, frame)
            return app.with_handlers(child.handlers)

    async def do(self, task: wire.Task, fetch: Callable[[wire.Blob], Read]) -> Finished:
        """Do a task; what came of it is kept when this returns.

        Args:
            task: what is asked.
            fetch: reads a blob from an offset to its end; waits for the server where need be.

        Raises:
            DiskFull: there is no room, not even to say so.
        """
        begin = time.perf_counter()
        outcome = await self._outcome(task, fetch)
        outcome.report.seconds = time.perf_counter() - begin
        try:
            return await self._kept(task, outcome)
        except* DiskFull:
            await self.stored(self.outbox.clear, answers.key_of(task.id))
        return await self._kept(task, Outcome(answers.full(task)))

    async def _kept(self, task: wire.Task, outcome: Outcome) -> Finished:
        """Write down what came of a task: on the disk before the answer leaves."""
        report = outcome.report
        report.id.CopyFrom(task.id)
        finished = Finished(
            key=answers.key_of(task.id),
            attempt=task.id.attempt,
            question=answers.question_digest(task),
            report=report.SerializeToString(),
            files=outcome.files,
        )
        event, line = answers.answer_line(task, report)
        finish = self.stored(self.outbox.finish, finished, event, line)
        if not report.state:
            await finish
            return finished
        run, exchange, _ = finished.key
        async with asyncio.TaskGroup() as group:
            group.create_task(finish)
            state = outcome.state or {}
            group.create_task(self._stated(self._states.write, run, exchange, state, after=task.state))
        return finished

    async def _outcome(self, task: wire.Task, fetch: Callable[[wire.Blob], Read]) -> Outcome:
        """What comes of a task."""
        installed = self._apps.get(task.app.name)
        dataset = pick_dataset(task.dataset, self._config.data)
        app = installed.app if installed is not None else None
        refusal = judge(task, app, dataset, self._config.policy, abilities=_ABILITIES, node=self._config.name)
        if refusal is not None:
            return Outcome(answers.failed(task, refusal.code, str(refusal)))
        assert dataset is not None
        try:
            runs = await self._app(task, installed, fetch)
            state: Mapping[str, Any] = {}
            if task.state or self._states.are_of(task.id.run):
                state = await self._stated(self._states.begin, task.id.run, task.state)
            with ExitStack() as pins:
                blobs = {b.digest.hex(): b for b in blobs_of(task) if not b.HasField("content")}
                paths = {name: await self._fetched(blob, fetch, pins) for name, blob in blobs.items()}
                return await self._done(task, runs, dataset, state, paths)
        except StateLost:
            return Outcome(answers.failed(task, "state-lost", _LOST.format(version=task.state)))
        except ChildDied as error:
            last = error.output[-_LAST:] if self._config.policy.output else ""
            failed = answers.failed(task, error.code, str(error), trace=last, retryable=error.retryable)
            return self._told(task, failed, error.output[:-_LAST])
        except DiskFull:
            return Outcome(answers.full(task))
        except UmbelError as error:
            return Outcome(answers.failed(task, error.code, self._words(error), retryable=error.retryable))
        except Exception as error:  # a task ends here: one that nobody foresaw does not end the node
            logger.exception("node-failed: run %s, round %d", task.run_name or task.id.run, task.round)
            return Outcome(answers.failed(task, "node-failed", f"the node failed on its side: {type(error).__name__}"))

    def _words(self, error: UmbelError) -> str:
        """What the server is told of an error; it need not know how the owner's directories are called."""
        words = str(error)
        if self._inside not in words:
            return words
        logger.error("node-failed: %s", words)
        return _FILES.format(node=self._config.name)

    async def _app(
        self, task: wire.Task, installed: InstalledApp | None, fetch: Callable[[wire.Blob], Read]
    ) -> InstalledApp:
        """The app of a task that may be done: the one that is here, or the one that comes from the server."""
        app = installed.app if installed is not None else None
        if not comes_along(task, app, self._config.policy):
            assert installed is not None
            return installed
        wheel, signers = task.app.wheel, [one.key for one in signatures_of(task)]
        with ExitStack() as pins:
            path = await self._fetched(wheel, fetch, pins)
            taken = await asyncio.to_thread(self._shipped.take, task.app, path, signers)
        if task.app.digest not in self._told_of:
            self._told_of.add(task.app.digest)
            await self.note("installed", answers.installed_line(task))
        return taken

    async def _fetched(self, blob: wire.Blob, fetch: Callable[[wire.Blob], Read], pins: ExitStack) -> Path:
        digest = blob.digest.hex()
        pins.enter_context(self._cache.pinned(digest))
        return await self._cache.get(digest, blob.size, fetch(blob))

    async def _done(
        self,
        task: wire.Task,
        app: InstalledApp,
        dataset: Dataset,
        state: Mapping[str, Any],
        paths: Mapping[str, Path],
    ) -> Outcome:
        """What comes of a task in a child."""
        threads = task.threads or self._config.threads
        begin = self._begin(app, dataset, task.id.client, int(task.seed), threads)
        async with self._children.child(begin) as child:
            begun = await self._ready(child, app)
            if begun is not None:
                return self._told(task, _failed_there(task, begun), child.output.tail())
            packed, arrays = pack_state(state, lambda a: keep_file(child.out, a))
            data = task.SerializeToString()
            blobs = {name: str(path) for name, path in paths.items()}
            blobs |= {name: str(child.out / name) for name in packed["arrays"] if isinstance(name, str)}
            child.about = _about(task)
            head = {"task": len(data), "blobs": blobs, "state": packed}
            watch = Watch(seconds=self._config.limits.max_seconds, memory=self._config.limits.max_memory)
            frame = await child.do(head, data + arrays, watch)
            try:
                return await self._taken(task, frame, child)
            except (FormatError, UmbelError) as error:
                await child.kill()
                raise ChildDied(
                    f"the app's process answered what makes no sense: {error}; it was stopped",
                    output=child.output.tail(),
                ) from error
            finally:
                child.clear()

    async def _ready(self, child: Child, app: InstalledApp) -> Frame | None:
        """What a child has said if its app cannot be loaded."""
        if child.loaded:
            return None
        if not await asyncio.to_thread(app.is_unchanged):
            raise AppDiffers(
                f"the files of app {app.app.name!r} on node {self._config.name} have changed since it was started",
                advice="start the node again, so that it offers what is there now",
            )
        frame = await child.ready(self._config.limits.max_memory)
        return None if frame.header.get("is") == "ready" else frame

    async def _taken(self, task: wire.Task, frame: Frame, child: Child) -> Outcome:
        """The answer of a child, with its files moved to where they wait to be sent."""
        head, body = frame
        if head.get("is") in ("failed", "stopped"):
            return self._told(task, _failed_there(task, frame), child.output.tail())
        if head.get("is") != "answer":
            raise FormatError("it is no answer")
        try:
            size = int(head["report"])
            report = wire.ReportRequest.FromString(body[:size])
        except (DecodeError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"no report can be read: {error!r}") from error
        report.id.CopyFrom(task.id)
        report.seconds, report.output = 0.0, ""
        wire.check_report(report)
        sent = answers.sent_blobs(report)
        refusal = judge_answer(sum(blob.size for blob in sent), self._config.policy, node=self._config.name)
        if refusal is not None:
            return self._told(task, answers.failed(task, refusal.code, str(refusal)), child.output.tail())
        state = None
        if head["state"] is not None and report.WhichOneof("outcome") == "update":
            state = unpack_state(head["state"], body[size:], lambda name: Arrays.load(_file(child.out, name)))
        report.state = state is not None
        files = tuple(dict.fromkeys(blob.digest.hex() for blob in sent if not blob.HasField("content")))
        for name in files:
            os.replace(_file(child.out, name), self.outbox.path(answers.key_of(task.id), name))
        return self._told(task, report, child.output.tail(), files, state)

    def _told(
        self,
        task: wire.Task,
        report: wire.ReportRequest,
        output: str,
        files: tuple[str, ...] = (),
        state: Mapping[str, Any] | None = None,
    ) -> Outcome:
        """An outcome, with what the app printed if its owner lets that leave."""
        if self._config.policy.output:
            report.output = answers.bounded_output(output)
        elif report.WhichOneof("outcome") == "failure":
            for line in f"{report.failure.message}\n{report.failure.traceback}".splitlines():
                _log(_about(task), line)
            report.failure.CopyFrom(answers.kept_here(report.failure))
        return Outcome(report, files, state)

    def _begin(self, app: InstalledApp, dataset: Dataset, client: str, seed: int, threads: int) -> Begin:
        return Begin(
            source=str(app.source),
            object=app.app.object,
            digest=app.app.digest.hex(),
            dataset=dataset.name,
            client=client,
            labels=self._config.labels,
            site=dataset.settings,
            seed=seed,
            threads=threads,
            devices=self._config.devices,
            run_as=self._config.run_as,
        )

    async def note(self, event: str, content: Mapping[str, Any]) -> None:
        """Write a line of the journal."""
        await self.stored(self.outbox.note, event, content)

    async def begin(self, task: wire.Task, question: bytes) -> Finished | None:
        """Write down that a task is asked; gives the last answer to it instead, if there is one.

        Args:
            task: what is asked.
            question: its digest.
        """
        key = answers.key_of(task.id)

        def begun(done: Finished | None) -> None:
            # where it was asked before, and revoked, there may be files without an answer
            (self.outbox.clear if done is None else self.outbox.drop)(key)
            self.outbox.note("asked", answers.asked_line(task))

        def found() -> Finished | None:  # in one go where a task is new, as nearly all are
            done = self.outbox.find(key)
            if done is None:
                begun(None)
            return done

        done = await self.stored(found)
        if done is None:
            return None
        if done.answers(task.id.attempt, question) and await self._has_state(done):
            return await self.stored(self.outbox.ask_again, done, task.id.attempt)
        return await self.stored(begun, done)

    async def end(self, key: Key, event: str, content: Mapping[str, Any]) -> None:
        """Forget an answer, and write down why, though one is cancelled meanwhile: nobody would come back to it.

        One that the server rejects is not given again.
        """

        def ended() -> None:
            self.outbox.note(event, content)
            (self.outbox.drop if content.get("verdict") == "rejected" else self.outbox.take)(key)

        ending = asyncio.get_running_loop().run_in_executor(self._one, ended)
        await over(ending)
        ending.result()

    async def trim(self) -> None:
        """End children that have waited too long, let old runs' states go, and settle what has been written."""
        await self._children.trim()
        await self._stated(self._states.sweep)
        await self.stored(self.outbox.trim)

    async def close(self) -> None:
        """End all children, and close all files."""
        await self._children.close()
        await self.stored(self.outbox.close)
        await self._stated(self._states.close)
        self._one.shutdown()
        self._other.shutdown()


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a task.

    Attributes:
        report: the answer.
        files: digests, hex, of arrays that lie beside it.
        state: the client's new state; None: unchanged.
    """

    report: wire.ReportRequest
    files: tuple[str, ...] = ()
    state: Mapping[str, Any] | None = None


def _failed_there(task: wire.Task, frame: Frame) -> wire.ReportRequest:
    """The report of a task whose child said that it failed."""
    head = frame.header
    if head.get("owners"):  # which the server need not know: it tells of settings
        _log(_about(task), str(head.get("message")))
        return answers.failed(task, UsageError.code, _SETTINGS.format(node=task.id.client))
    if head.get("is") == "stopped":
        return answers.failed(task, ClientFailed.code, "its code raised KeyboardInterrupt")
    code, message, trace = (str(head.get(name, "")) for name in ("code", "message", "traceback"))
    if code == DiskFull.code:
        return answers.full(task)
    return answers.failed(task, code if _CODE.fullmatch(code) else ClientFailed.code, message, trace=trace)


def _load_error(app: InstalledApp, frame: Frame) -> AppError:
    message, trace = (str(frame.header.get(name, "")) for name in ("message", "traceback"))
    return load_error(app.app.name, message, trace)


def _file(directory: Path, name: str) -> Path:
    """A file that a child has left.

    Raises:
        FormatError: it is none, or lies elsewhere.
    """
    path = directory / name
    if not _DIGEST.fullmatch(name) or not path.exists() or not stat.S_ISREG(path.lstat().st_mode):
        raise FormatError(f"there is no file {name[:80]!r}")
    return path


def _are_whole(files: Mapping[str, Path]) -> bool:
    """Have the files these digests?"""
    for digest, path in files.items():
        try:
            if not is_file_named(bytes.fromhex(digest), path):
                return False
        except OSError:
            return False
    return True


def _about(task: wire.Task) -> str:
    return f"run {task.run_name or task.id.run}, round {task.round}"


def _log(about: str, line: str) -> None:
    logger.info("app-output: %s: %s", about, line)


__all__ = ["Outcome", "Workshop"]

"""A server side for tests: it does what a test says, over the real link in memory."""

from __future__ import annotations

import asyncio
import functools
import random
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from umbel import wire
from umbel.aggregate import Expected
from umbel.apps.project import Project
from umbel.arrays import Arrays
from umbel.digest import digest_of
from umbel.engine.question import Question
from umbel.errors import NotThere, Unreachable
from umbel.link.base import Data
from umbel.link.dispatch import Dispatch
from umbel.link.identity import Identity
from umbel.link.memory import MemoryLink
from umbel.link.sessions import Sessions
from umbel.link.tasks import task_of
from umbel.node.answers import sent_blobs
from umbel.node.config import NodeConfig
from umbel.node.installed import InstalledApp
from umbel.node.observer import Observer
from umbel.node.program import Node

RUN = "0123456789abcdef" * 2
PATIENCE = 60.0  # seconds after which a test that waits has failed
MODEL = Arrays({"w": np.arange(4.0)})

APP = """
import os, signal, sys, time
import numpy as np
import umbel

client = umbel.ClientApp()

@client.train
def train(model, ctx):
    do = ctx.config.get("do", "")
    if do:
        exec(do)
    ctx.state["count"] = ctx.state.get("count", 0) + 1
    noise = ctx.rng.normal(size=model["w"].shape)
    return umbel.Update(
        model={"w": model["w"] + noise + ctx.state["count"]}, weight=3, metrics={"loss": float(noise[0])}
    )

@client.evaluate
def evaluate(model, ctx):
    return umbel.Metrics({"sum": float(model["w"].sum())}, weight=2)

@client.query("site")
def site(model, ctx):
    return umbel.Update(value={"text": repr(dict(ctx.site)).encode()})
"""


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that awaits."""

    @functools.wraps(test)
    def run(*args: Any, **more: Any) -> None:
        asyncio.run(test(*args, **more))

    return run


class Script:
    """A `NodeCalls` that hands out tasks and keeps answers."""

    def __init__(self, key: bytes) -> None:
        self.key, self.sessions = key, Sessions()
        self.blobs: dict[bytes, bytes] = {}
        self.incoming: dict[bytes, bytearray] = {}
        self.reports: list[wire.ReportRequest] = []
        self.opened: list[wire.OpenSessionRequest] = []
        self.tasks: dict[int, wire.Task] = {}
        self.reads: list[tuple[bytes, int]] = []
        self.writes: list[int] = []
        self.break_read_after = self.break_write_after = -1
        self.verdict = wire.ReportResponse.VERDICT_ACCEPTED
        self.down = False
        self.refusals: list[Exception] = []
        self.work: asyncio.Future[Any] | None = None
        self._notices: asyncio.Queue[wire.SubscribeResponse | None] = asyncio.Queue()
        self._changed = asyncio.Event()
        self.dispatch = Dispatch(self, sessions=self.sessions)

    async def until(self, true: Callable[[], Any]) -> Any:
        """Wait until something is true that a call may change."""
        async with asyncio.timeout(PATIENCE):
            while not (found := true()):
                if self.work is not None and self.work.done():
                    await self.work
                    raise AssertionError("the node has ended")
                self._changed.clear()
                await self._changed.wait()
            return found

    def changed(self) -> None:
        self._changed.set()

    def say(self, notice: wire.SubscribeResponse | None) -> None:
        """Tell the node something; None ends the stream."""
        self._notices.put_nowait(notice)

    def ask(self, task: wire.Task) -> wire.Task:
        self.tasks[task.id.exchange] = task
        self.say(wire.SubscribeResponse(task=task))
        return task

    async def answer(self, task: wire.Task, count: int = 1) -> wire.ReportRequest:
        """The n-th answer to a task."""

        def found() -> wire.ReportRequest | None:
            mine = [r for r in self.reports if (r.id.run, r.id.exchange) == (task.id.run, task.id.exchange)]
            return mine[count - 1] if len(mine) >= count else None

        report = await self.until(found)
        assert isinstance(report, wire.ReportRequest)
        return report

    def arrays(self, blob: wire.Blob) -> Arrays:
        """The arrays of a blob of an answer."""
        data = blob.content if blob.HasField("content") else self.blobs[blob.digest]
        assert digest_of(data) == blob.digest
        return Arrays.from_bytes(data)

    def _up(self) -> None:
        if self.down:
            raise Unreachable("the server is down")

    async def enrol(self, request: wire.EnrolRequest) -> wire.EnrolResponse:
        del request
        return wire.EnrolResponse(federation="f" * 32)

    async def challenge(self, request: wire.ChallengeRequest) -> wire.ChallengeResponse:
        self._up()
        return wire.ChallengeResponse(challenge=self.sessions.challenge(request.name, time.time()))

    async def open_session(self, request: wire.OpenSessionRequest) -> wire.OpenSessionResponse:
        self._up()
        session = self.sessions.open(request.name, request.challenge, request.signature, self.key, time.time())
        self.opened.append(request)
        self.changed()
        return wire.OpenSessionResponse(
            session=session,
            version=1,
            program="script",
            keepalive=20,
            chunk=1 << 20,
            inline=64 << 10,
            time=time.time(),
            federation="f" * 32,
        )

    async def subscribe(self, session: bytes, request: wire.SubscribeRequest) -> AsyncIterator[wire.SubscribeResponse]:
        del session, request
        while (notice := await self._notices.get()) is not None:
            yield notice

    async def report(self, session: bytes, request: wire.ReportRequest) -> wire.ReportResponse:
        del session
        self._up()
        for blob in sent_blobs(request):
            if not blob.HasField("content") and blob.digest not in self.blobs:
                raise NotThere("it was not written")
        self.reports.append(request)
        self.changed()
        return wire.ReportResponse(verdict=self.verdict)

    async def read_blob(self, session: bytes, request: wire.ReadBlobRequest) -> AsyncIterator[Data]:
        del session
        self._up()
        if request.digest not in self.blobs:
            raise NotThere("there is no such blob")
        data = self.blobs[request.digest]
        self.reads.append((request.digest, request.offset))
        self.changed()
        for begin in range(request.offset, len(data), 1 << 18):
            if 0 <= self.break_read_after <= begin:
                self.break_read_after = -1
                raise Unreachable("the connection broke")
            yield data[begin : begin + (1 << 18)]

    async def stat_blob(self, session: bytes, request: wire.StatBlobRequest) -> wire.StatBlobResponse:
        del session
        if request.digest in self.blobs:
            return wire.StatBlobResponse(received=len(self.blobs[request.digest]), complete=True)
        return wire.StatBlobResponse(received=len(self.incoming.get(request.digest, b"")))

    async def write_blob(
        self, session: bytes, head: wire.BlobHead, data: AsyncIterator[Data]
    ) -> wire.WriteBlobResponse:
        del session
        if self.refusals:
            raise self.refusals.pop()
        there = self.incoming.setdefault(head.digest, bytearray())
        assert head.offset == len(there)
        self.writes.append(head.offset)
        async for piece in data:
            there += piece
            if 0 <= self.break_write_after <= len(there):
                self.break_write_after = -1
                raise Unreachable("the connection broke")
        if len(there) == head.size:
            assert digest_of(there) == head.digest
            self.blobs[head.digest] = bytes(self.incoming.pop(head.digest))
            self.changed()
            return wire.WriteBlobResponse(received=head.size, complete=True)
        return wire.WriteBlobResponse(received=len(there))

    def task(
        self,
        app: InstalledApp,
        *,
        exchange: int = 1,
        kind: str = "train",
        name: str = "",
        model: Arrays | None = MODEL,
        config: Mapping[str, Any] | None = None,
        state: int = 0,
        attempt: int = 1,
        submitter: str = "alice",
        run: str = RUN,
        dataset: str = "",
        threads: int = 1,
        seed: int = 7,
    ) -> wire.Task:
        """A task as the server would make it."""
        question = Question(
            kind=kind,  # type: ignore[arg-type]
            name=name or kind,
            seed=seed,
            round=exchange,
            call=1,
            sequence=exchange,
            model=model,
            config=config or {},
            expected=Expected(sent=model.spec if kind == "train" and model is not None else None)
            if kind != "evaluate"
            else None,
        )
        task = task_of(question, self.place)
        task.id.CopyFrom(wire.TaskId(run=run, exchange=exchange, client="berlin", attempt=attempt))
        task.run_name, task.submitter, task.dataset, task.state, task.threads = (
            "trial",
            submitter,
            dataset,
            state,
            threads,
        )
        task.app.CopyFrom(app.app.message())
        return task

    def place(self, arrays: Arrays) -> wire.Blob:
        data = bytes(arrays.to_bytes())
        digest = digest_of(data)
        if len(data) <= 64 << 10:
            return wire.Blob(digest=digest, size=len(data), content=data)
        self.blobs[digest] = data
        return wire.Blob(digest=digest, size=len(data))


def make_app(root: Path, source: str = APP, name: str = "myfed") -> InstalledApp:
    """An app in a directory."""
    (root / name).mkdir(parents=True)
    (root / name / "__init__.py").write_text(textwrap.dedent(source))
    (root / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "1.0"\n[tool.umbel]\nclient = "{name}:client"\n'
    )
    return InstalledApp.of(Project.find(root))


@asynccontextmanager
async def running(
    config: NodeConfig,
    app: InstalledApp,
    directory: Path,
    *,
    environment: Mapping[str, str] | None = None,
    observer: Observer | None = None,
    script: Script | None = None,
    draw: Callable[[], float] = random.random,
) -> AsyncIterator[Script]:
    """A node that runs, and the script that it talks to."""
    identity = Identity.at(directory / "key")
    script = script or Script(identity.public)
    link = MemoryLink(script.dispatch, identity, "berlin")
    node = Node(
        config.with_(name="berlin"),
        link,
        [app],
        directory,
        environment=environment or {"PATH": "/usr/bin:/bin"},
        observer=observer,
        draw=draw,
    )
    work = asyncio.ensure_future(node.run())
    try:
        script.work = work
        work.add_done_callback(lambda _: script.changed())
        yield script
    finally:
        script.work = None
        work.cancel()
        async with asyncio.timeout(10):
            await asyncio.wait([work])
        if not work.cancelled():
            work.result()

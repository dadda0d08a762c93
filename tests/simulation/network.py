"""A federation in one event loop: the server's own classes, and nodes that do their tasks on the spot.

What is drawn: how long each message takes, which are lost on the way there or back, which nodes go away, and when the
server is killed. A killed server loses all that it had in memory; its store stays.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from umbel import ClientApp, wire
from umbel.arrays import Arrays
from umbel.client.context import ClientInfo
from umbel.client.work import Bench, Done
from umbel.codec import encode
from umbel.engine.submission import Submission
from umbel.errors import LinkError, Unreachable
from umbel.link.dispatch import Dispatch
from umbel.link.identity import Identity
from umbel.link.memory import MemoryLink
from umbel.link.sessions import Sessions
from umbel.link.tasks import question_of, report_of
from umbel.server.apps import values_of
from umbel.server.calls import NodeDesk
from umbel.server.counts import Counts
from umbel.server.hub import Hub
from umbel.server.installed import Installed
from umbel.server.people import hashed, new_ticket
from umbel.server.runs import Runs
from umbel.server.uploads import Uploads
from umbel.store.sql import Kept, NodeRow, RunRow, ServerStore

APP = wire.App(name="app", version="1", digest=hashlib.sha256(b"app").digest(), object="app:client")


@dataclass
class Place:
    """The server's side: what outlives it, and what does not."""

    directory: Path
    patience: float = 30.0
    app: wire.App = field(default_factory=lambda: APP)
    installed: Installed = field(default_factory=Installed)
    dispatch: Dispatch | None = None
    hub: Hub | None = None
    desk: NodeDesk | None = None
    runs: Runs | None = None
    store: ServerStore | None = None
    uploads: Uploads = field(init=False)

    def start(self) -> None:
        store = ServerStore(f"sqlite:///{self.directory / 'umbel.sqlite'}", self.directory, now=time.time)
        self.hub = hub = Hub(enrolled=store.nodes, patience=self.patience, wait=0.05)
        runs, counts = Runs(store, hub, installed=self.installed), Counts()
        self.uploads = Uploads(store, counts)
        self.desk = desk = NodeDesk(store, sessions := Sessions(), hub, runs, self.uploads, counts=counts)
        self.dispatch = Dispatch(desk, sessions=sessions)
        self.runs, self.store = runs, store
        runs.start()

    async def stop(self) -> None:
        runs, store, self.dispatch = self.runs, self.store, None
        assert runs is not None
        assert store is not None
        assert self.hub is not None
        await runs.close()
        self.hub.goodbye("killed", 0.0)
        while any(node.connected for node in self.hub.nodes.values()):
            await asyncio.sleep(0)
        store.close()

    async def enrol(self, name: str, identity: Identity) -> None:
        """As if with a ticket."""
        assert self.store is not None
        secret, ticket = new_ticket(uses=1, seconds=60.0, creator="test", now=time.time())
        await asyncio.wrap_future(self.store.keep_ticket(ticket, "test"))
        await asyncio.wrap_future(
            self.store.enrol(hashed(secret), NodeRow(name=name, public_key=identity.public, enrolled=0.0))
        )
        assert self.desk is not None
        self.desk.changed()

    async def submit(self, submission: Submission, **changes: Any) -> str:
        assert self.runs is not None
        assert self.store is not None
        kept: list[Kept] = []

        def place(arrays: Arrays) -> str:
            assert self.store is not None
            kept.append(self.store.blobs.keep(arrays))
            return arrays.digest()

        row = RunRow(
            **{
                "id": hashlib.sha256(repr(changes).encode()).hexdigest()[:32],
                "key": "k",
                "name": "run",
                "owner": "alice",
                "rounds": submission.rounds,
                "submission": json.dumps(encode(submission, place)),
                "app": values_of(self.app),
                **changes,
            }
        )
        return (await self.runs.submit(row, kept)).id

    async def ended(self, run: str) -> RunRow:
        """Wait until a run has ended."""
        assert self.runs is not None
        async for _ in self.runs.news.watch(run, 0):
            pass
        return self.runs.find(run)


@dataclass
class LightNode:
    """A node without a process: it does what it is asked at once, and keeps its client's states in memory."""

    place: Place
    name: str
    client: ClientApp
    site: Mapping[str, Any]
    draw: Random
    losses: float = 0.0
    identity: Identity = field(default_factory=Identity.make)
    states: dict[str, dict[int, Any]] = field(default_factory=dict)
    trained: list[tuple[str, int]] = field(default_factory=list)
    acknowledged: set[tuple[str, int]] = field(default_factory=set)
    benches: dict[str, Bench] = field(default_factory=dict)

    async def live(self) -> None:
        """Connect again and again, until cancelled."""
        while True:
            with suppress(LinkError):
                await self._session()
            await asyncio.sleep(self.draw.random() / 200)

    async def _session(self) -> None:
        dispatch = self.place.dispatch
        if dispatch is None:
            return
        link = MemoryLink(dispatch, self.identity, self.name)
        await link.open(wire.OpenSessionRequest(apps=[self.place.app], slots=1, datasets=["default"], time=0.0))
        async for notice in link.subscribe():
            if self.draw.random() < self.losses:
                return  # the connection breaks
            if notice.WhichOneof("notice") == "task":
                await self._do(link, notice.task)

    async def _do(self, link: MemoryLink, task: wire.Task) -> None:
        report = await self._report(link, task)
        if self.draw.random() < self.losses:
            raise Unreachable("it is lost on the way")
        for _ in range(1 + (self.draw.random() < self.losses)):
            with suppress(LinkError):
                answer = await link.report(report)
                if answer.verdict == wire.ReportResponse.VERDICT_ACCEPTED:
                    self.acknowledged.add((task.id.run, task.id.exchange))
        await asyncio.sleep(0)

    async def _report(self, link: MemoryLink, task: wire.Task) -> wire.ReportRequest:
        blobs: dict[bytes, Arrays] = {}
        for blob in (task.model, *(named.blob for named in task.extra), *task.attachments):
            if not blob.digest:
                continue
            content = blob.content if blob.HasField("content") else await self._read(link, blob.digest)
            blobs[blob.digest] = Arrays.from_bytes(content)
        question = question_of(task, lambda blob: blobs[blob.digest])
        states = self.states.setdefault(task.id.run, {0: {}})
        for later in [sequence for sequence in states if sequence > task.state]:
            del states[later]
        state = states[task.state]
        bench = self.benches.setdefault(task.seed, Bench(self.client, int(task.seed), threads=task.threads))
        self.trained.append((task.id.run, task.id.exchange))
        done = bench.do(question, ClientInfo(self.name, site=self.site), state)
        if not isinstance(done, Done):
            return report_of(task.id, done, _inline)
        if done.state is not None:
            states[task.id.exchange] = done.state
        return report_of(task.id, done.update, _inline, state=done.state is not None)

    async def _read(self, link: MemoryLink, digest: bytes) -> bytes:
        return b"".join([bytes(piece) async for piece in link.read_blob(wire.ReadBlobRequest(digest=digest))])


def _inline(arrays: Arrays) -> wire.Blob:
    data = bytes(arrays.to_bytes())
    return wire.Blob(digest=bytes.fromhex(arrays.digest()), size=len(data), content=data)


@asynccontextmanager
async def federation(
    directory: Path,
    client: ClientApp,
    sites: Mapping[str, Mapping[str, Any]],
    *,
    seed: int = 0,
    losses: float = 0.0,
    patience: float = 30.0,
    app: wire.App = APP,
    installed: Installed | None = None,
) -> AsyncIterator[tuple[Place, dict[str, LightNode]]]:
    """A server, and a node at each site."""
    place = Place(directory, patience, app, installed or Installed())
    place.start()
    draw = Random(seed)
    nodes = {name: LightNode(place, name, client, site, Random(draw.random()), losses) for name, site in sites.items()}
    for node in nodes.values():
        await place.enrol(node.name, node.identity)
    living = [asyncio.create_task(node.live()) for node in nodes.values()]
    try:
        yield place, nodes
    finally:
        for task in living:
            task.cancel()
        await asyncio.gather(*living, return_exceptions=True)
        if place.dispatch is not None:
            await place.stop()

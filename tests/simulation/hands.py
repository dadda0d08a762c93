"""A node whose every step a test takes itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import umbel
from tests.simulation.network import APP, Place
from umbel import wire
from umbel.arrays import Arrays
from umbel.digest import digest_of
from umbel.engine.submission import Submission
from umbel.errors import LinkError
from umbel.link.identity import Identity
from umbel.link.memory import MemoryLink

PATIENCE = 60.0  # seconds after which a test that waits has failed


def plain(size: int = 3, rounds: int = 1, **changes: Any) -> Submission:
    """A run of as many entries that takes one node."""
    return Submission(
        seed=1,
        rounds=rounds,
        initial=Arrays({"w": np.zeros(size)}),
        handlers=("train",),
        strategy=umbel.fed_avg(rounds=umbel.rounds(**{"min_nodes": 1, **changes})),
    )


@dataclass
class Hand:
    """A node."""

    place: Place
    name: str = "berlin"
    identity: Identity = field(default_factory=Identity.make)
    heard: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)

    async def connect(self, **offer: Any) -> None:
        """Open a session, and listen."""
        assert self.place.dispatch is not None
        self.link = MemoryLink(self.place.dispatch, self.identity, self.name)
        await self.link.open(wire.OpenSessionRequest(**{"apps": [APP], "slots": 1, "datasets": ["default"], **offer}))
        self.listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        try:
            async for notice in self.link.subscribe():
                self.heard.put_nowait(notice)
        except LinkError as error:
            self.heard.put_nowait(error)

    async def away(self) -> None:
        """Disconnect."""
        self.listening.cancel()
        with suppress(asyncio.CancelledError):
            await self.listening

    async def task(self) -> wire.Task:
        """The next task."""
        async with asyncio.timeout(PATIENCE):
            while True:
                notice = await self.heard.get()
                assert not isinstance(notice, Exception), notice
                if notice.WhichOneof("notice") == "task":
                    task = notice.task
                    assert isinstance(task, wire.Task)
                    return task

    def unheard(self) -> list[str]:
        """What else was said."""
        return [self.heard.get_nowait().WhichOneof("notice") for _ in range(self.heard.qsize())]

    async def write(
        self, data: bytes, *, name: bytes = b"", size: int | None = None, offset: int = 0
    ) -> wire.WriteBlobResponse:
        """Write a blob, or what these bytes are of it."""

        async def pieces() -> AsyncIterator[bytes]:
            for begin in range(0, len(data), wire.CHUNK):
                yield data[begin : begin + wire.CHUNK]

        head = wire.BlobHead(digest=name or digest_of(data), size=size or len(data), offset=offset)
        return await self.link.write_blob(head, pieces())

    async def report(self, task: wire.Task, blob: wire.Blob) -> int:
        """Answer with a blob; gives the verdict."""
        update = wire.Update(kind="model", arrays=blob, weight=1)
        return (await self.link.report(wire.ReportRequest(id=task.id, update=update))).verdict


def blob_of(data: bytes, *, inside: bool = True) -> wire.Blob:
    """A blob with these bytes; or that was written on its own."""
    more = {"content": data} if inside else {}
    return wire.Blob(digest=digest_of(data), size=len(data), **more)


def trained(task: wire.Task, size: int = 3) -> bytes:
    """What could be the answer to a task of `plain`."""
    return bytes(Arrays({"w": np.full(size, float(task.round))}).to_bytes())


@asynccontextmanager
async def one_node(directory: Path, patience: float = 30.0) -> AsyncIterator[tuple[Place, Hand]]:
    """A server, and a node that is connected."""
    place = Place(directory, patience)
    place.start()
    hand = Hand(place)
    await place.enrol(hand.name, hand.identity)
    await hand.connect()
    try:
        yield place, hand
    finally:
        await hand.away()
        if place.dispatch is not None:
            await place.stop()

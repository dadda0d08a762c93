"""A person's link: in memory, over TLS, and for callers that wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from tests.unit.link.authority import AUTHORITY
from umbel import wire
from umbel.errors import DiskFull, FormatError, Incompatible, NotAllowed, UmbelError, Unauthenticated, Unreachable
from umbel.link.address import Address
from umbel.link.base import ControlCalls, Data
from umbel.link.dispatch import Dispatch
from umbel.link.grpc_blocking import BlockingPersonLink
from umbel.link.grpc_client import grpc_person
from umbel.link.grpc_server import serve
from umbel.link.memory import memory_person
from umbel.link.person import PersonLink
from umbel.link.sessions import Sessions
from umbel.remote.line import Line

SECRET = bytes(range(16))
TOKEN = Address("localhost", 1, SECRET).secret_text
RUN = wire.Run(id="a" * 32, name="first", status="running")


class Control:
    """Answers people; of the calls that it lacks nothing is known."""

    def __init__(self) -> None:
        self.left = threading.Event()
        self.full = False
        self.written = b""

    async def list_runs(self, person: Any, _: wire.ListRunsRequest) -> wire.ListRunsResponse:
        return wire.ListRunsResponse(runs=[RUN, wire.Run(name=person)])

    async def list_tokens(self, _: Any, request: wire.ListTokensRequest) -> wire.ListTokensResponse:
        token = wire.Token(name=f"token {request.page}")
        return wire.ListTokensResponse(tokens=[token, token], pages=3)

    async def stop_run(self, *_: Any) -> wire.StopRunResponse:
        raise AssertionError("this was not permitted")

    async def watch_run(self, _: Any, request: wire.WatchRunRequest) -> AsyncIterator[wire.WatchRunResponse]:
        try:
            for number in range(1, 4):
                yield wire.WatchRunResponse(event=number, kind="round", content=request.run)
            if not request.now:
                await asyncio.Event().wait()
        finally:
            self.left.set()

    async def read_run_blob(self, _: Any, request: wire.ReadRunBlobRequest) -> AsyncIterator[Data]:
        for begin in range(request.offset, 1000, 300):
            yield bytes(min(300, 1000 - begin))

    async def write_run_blob(self, _: Any, __: wire.BlobHead, data: AsyncIterator[Data]) -> wire.WriteRunBlobResponse:
        async for piece in data:
            self.written += piece
            if self.full:
                raise DiskFull("no room")
        return wire.WriteRunBlobResponse(received=len(self.written), complete=True)


def authorize(token: str | None, method: str) -> str:
    if token != TOKEN:
        raise Unauthenticated("this token is not known", advice="log in")
    if method == "StopRun":
        raise NotAllowed("a viewer stops no run")
    return "alice"


def dispatch(control: Control) -> Dispatch:
    return Dispatch(cast(Any, object()), cast(ControlCalls, control), sessions=Sessions(), authorize=authorize)


@contextmanager
def served(control: Control) -> Iterator[Address]:
    """A server in a loop of its own thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def do(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)

    made = serve(dispatch(control), address="127.0.0.1:0", certificate=AUTHORITY.certificate, key=AUTHORITY.key)
    server = do(made)
    try:
        yield Address("localhost", server.port, SECRET, AUTHORITY.der)
    finally:
        do(server.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def talk(link: PersonLink, control: Control) -> None:
    runs = (await link.call("ListRuns", wire.ListRunsRequest())).runs
    assert [run.name for run in runs] == ["first", "alice"]
    now = wire.WatchRunRequest(run="x", now=True)
    assert [event.event async for event in link.stream("WatchRun", now)] == [1, 2, 3]
    blob = wire.ReadRunBlobRequest(run="x", digest=bytes(32), offset=100)
    assert sum([len(piece) async for piece in link.read_blob(blob)]) == 900
    with pytest.raises(NotAllowed, match="a viewer"):
        await link.call("StopRun", wire.StopRunRequest())
    with pytest.raises(Incompatible):
        await link.call("ListNodes", wire.ListNodesRequest())

    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"

    answer = await link.write_blob(wire.BlobHead(digest=bytes(32), size=3), pieces())
    assert answer.complete
    assert control.written == b"abc"
    await link.close()
    with pytest.raises(Unreachable):
        await link.call("ListRuns", wire.ListRunsRequest())


def test_in_memory() -> None:
    async def main() -> None:
        control = Control()
        await talk(memory_person(dispatch(control), TOKEN), control)
        with pytest.raises(Unauthenticated):
            await memory_person(dispatch(control), None).call("ListRuns", wire.ListRunsRequest())

    asyncio.run(main())


def test_over_tls() -> None:
    async def main() -> None:
        control = Control()
        server = await serve(
            dispatch(control), address="127.0.0.1:0", certificate=AUTHORITY.certificate, key=AUTHORITY.key
        )
        try:
            address = Address("localhost", server.port, SECRET, AUTHORITY.der)
            await talk(grpc_person(address), control)
            stranger = grpc_person(address, "x")
            with pytest.raises(Unauthenticated, match="not known"):
                await stranger.call("ListRuns", wire.ListRunsRequest())
            await stranger.close()
        finally:
            await server.stop()

    asyncio.run(main())


def test_a_list_has_all_pages() -> None:
    with served(Control()) as address, Line(address) as line:
        tokens = line.listed("ListTokens", "tokens")
        assert [token.name for token in tokens] == [f"token {n}" for n in (0, 0, 1, 1, 2, 2)]
        assert line.listed("ListRuns", "runs")[0] == RUN  # by a server that knows no pages


def test_for_callers_that_wait() -> None:
    control = Control()
    with served(control) as address, BlockingPersonLink(address) as link:
        assert link.call("ListRuns", wire.ListRunsRequest()).runs[0] == RUN
        assert len(list(link.stream("WatchRun", wire.WatchRunRequest(now=True)))) == 3
        control.left.clear()
        for event in link.stream("WatchRun", wire.WatchRunRequest()):
            if event.event == 3:
                break
        assert control.left.wait(30)
        assert sum(map(len, link.read_blob(wire.ReadRunBlobRequest(digest=bytes(32))))) == 1000
        with pytest.raises(NotAllowed):
            link.call("StopRun", wire.StopRunRequest())
        head = wire.BlobHead(digest=bytes(32), size=1 << 30)
        assert link.write_blob(head, [b"abc", memoryview(b"de")]).received == 5

        def broken() -> Iterator[bytes]:
            yield b"x"
            raise FormatError("mine")

        with pytest.raises(FormatError, match="mine"):
            link.write_blob(head, broken())
        control.full = True
        with pytest.raises(DiskFull):
            link.write_blob(head, (bytes(wire.CHUNK) for _ in range(200)))
    with pytest.raises(Unreachable, match="closed"):
        link.call("ListRuns", wire.ListRunsRequest())
    with BlockingPersonLink(Address("localhost", 1), deadline=20) as nowhere, pytest.raises(UmbelError) as caught:
        nowhere.call("ListRuns", wire.ListRunsRequest())
    assert type(caught.value) is Unreachable


def test_a_server_without_people_takes_none() -> None:
    server = Dispatch(cast(Any, object()), cast(ControlCalls, Control()), sessions=Sessions())
    with pytest.raises(Unauthenticated):
        asyncio.run(memory_person(server, TOKEN).call("ListRuns", wire.ListRunsRequest()))

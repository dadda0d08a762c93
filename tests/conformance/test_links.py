"""Every link passes the suite of umbel.testing; broken ones do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.unit.link.authority import AUTHORITY
from umbel import wire
from umbel.errors import Rejected, UmbelError, Unreachable
from umbel.link.address import Address
from umbel.link.base import Data, Link
from umbel.link.dispatch import Dispatch
from umbel.link.grpc_client import GrpcLink
from umbel.link.grpc_server import serve
from umbel.link.identity import Identity
from umbel.link.memory import MemoryLink
from umbel.testing import check_link
from umbel.testing import link as suite
from umbel.wire.frames import Piece


@asynccontextmanager
async def in_memory(server: Dispatch, identity: Identity, name: str) -> AsyncIterator[Link]:
    link = MemoryLink(server, identity, name)
    try:
        yield link
    finally:
        await link.close()


@asynccontextmanager
async def over_tls(server: Dispatch, identity: Identity, name: str) -> AsyncIterator[Link]:
    served = await serve(server, address="127.0.0.1:0", certificate=AUTHORITY.certificate, key=AUTHORITY.key)
    link = GrpcLink(Address("localhost", served.port, bytes(16), AUTHORITY.der), identity, name)
    try:
        yield link
    finally:
        await link.close()
        await served.stop()


def test_the_link_in_memory_passes() -> None:
    check_link(in_memory)


def test_the_link_over_grpc_passes() -> None:
    check_link(over_tls)


# --- broken ones -----------------------------------------------------------------------------------


class Broken:
    """A link that is right; those below are wrong in one thing each."""

    def __init__(self, server: Dispatch, identity: Identity, name: str) -> None:
        self.inner = MemoryLink(server, identity, name)

    async def enrol(self, request: wire.EnrolRequest) -> wire.EnrolResponse:
        return await self.inner.enrol(request)

    async def open(self, request: wire.OpenSessionRequest) -> wire.OpenSessionResponse:
        return await self.inner.open(request)

    async def subscribe(self) -> AsyncIterator[wire.SubscribeResponse]:
        notices = self.inner.subscribe()
        try:
            async for notice in notices:
                yield notice
        finally:
            await notices.aclose()  # type: ignore[attr-defined]  # a generator it is

    async def report(self, request: wire.ReportRequest) -> wire.ReportResponse:
        return await self.inner.report(request)

    def read_blob(self, request: wire.ReadBlobRequest) -> AsyncIterator[Data]:
        return self.inner.read_blob(request)

    async def stat_blob(self, request: wire.StatBlobRequest) -> wire.StatBlobResponse:
        return await self.inner.stat_blob(request)

    async def write_blob(self, head: wire.BlobHead, data: AsyncIterator[Piece]) -> wire.WriteBlobResponse:
        return await self.inner.write_blob(head, data)

    async def close(self) -> None:
        await self.inner.close()


class ReportsTwice(Broken):
    async def report(self, request: wire.ReportRequest) -> wire.ReportResponse:
        await self.inner.report(request)
        return await self.inner.report(request)


class ReportsNothing(Broken):
    async def report(self, request: wire.ReportRequest) -> wire.ReportResponse:
        del request
        return wire.ReportResponse(verdict=wire.ReportResponse.VERDICT_ACCEPTED)


class LosesAField(Broken):
    async def report(self, request: wire.ReportRequest) -> wire.ReportResponse:
        changed = wire.ReportRequest()
        changed.CopyFrom(request)
        changed.state = False
        return await self.inner.report(changed)


class OpensByItself(Broken):
    async def report(self, request: wire.ReportRequest) -> wire.ReportResponse:
        try:
            return await self.inner.report(request)
        except UmbelError:
            await self.inner.open(wire.OpenSessionRequest())
            return await self.inner.report(request)


class ForgetsWhatItOpensWith(Broken):
    async def open(self, request: wire.OpenSessionRequest) -> wire.OpenSessionResponse:
        del request
        return await self.inner.open(wire.OpenSessionRequest())


class LosesTheFirstNotice(Broken):
    async def subscribe(self) -> AsyncIterator[wire.SubscribeResponse]:
        notices = super().subscribe()
        try:
            await anext(notices)
            async for notice in notices:
                yield notice
        finally:
            await notices.aclose()  # type: ignore[attr-defined]  # a generator it is


class NeverLeaves(Broken):
    def __init__(self, server: Dispatch, identity: Identity, name: str) -> None:
        super().__init__(server, identity, name)
        self.kept: list[AsyncIterator[wire.SubscribeResponse]] = []

    async def subscribe(self) -> AsyncIterator[wire.SubscribeResponse]:
        self.kept.append(self.inner.subscribe())
        async for notice in self.kept[-1]:
            yield notice


class IgnoresTheOffset(Broken):
    def read_blob(self, request: wire.ReadBlobRequest) -> AsyncIterator[Data]:
        return self.inner.read_blob(wire.ReadBlobRequest(digest=request.digest))


class ReadsAhead(Broken):
    async def read_blob(self, request: wire.ReadBlobRequest) -> AsyncIterator[Data]:
        for piece in [piece async for piece in self.inner.read_blob(request)]:
            yield piece


class EndsEarly(Broken):
    async def read_blob(self, request: wire.ReadBlobRequest) -> AsyncIterator[Data]:
        try:
            async for piece in self.inner.read_blob(request):
                yield piece
        except UmbelError:
            return


class TurnsPieces(Broken):
    async def write_blob(self, head: wire.BlobHead, data: AsyncIterator[Piece]) -> wire.WriteBlobResponse:
        async def turned() -> AsyncIterator[Piece]:
            for piece in [piece async for piece in data][::-1]:
                yield piece

        return await self.inner.write_blob(head, turned())


class WrapsTheCallersError(Broken):
    async def write_blob(self, head: wire.BlobHead, data: AsyncIterator[Piece]) -> wire.WriteBlobResponse:
        try:
            return await self.inner.write_blob(head, data)
        except KeyError as error:
            raise Rejected("it broke") from error


class AllIsUnreachable(Broken):
    async def report(self, request: wire.ReportRequest) -> wire.ReportResponse:
        try:
            return await self.inner.report(request)
        except UmbelError as error:
            raise Unreachable(error.what, advice=error.advice) from error


class LosesAdvice(Broken):
    async def report(self, request: wire.ReportRequest) -> wire.ReportResponse:
        try:
            return await self.inner.report(request)
        except UmbelError as error:
            raise type(error)(error.what) from error


class GoesOnWhenCancelled(Broken):
    async def report(self, request: wire.ReportRequest) -> wire.ReportResponse:
        return await asyncio.shield(self.inner.report(request))


class StaysOpen(Broken):
    async def close(self) -> None:
        return


class BelievesEverything(Broken):
    async def subscribe(self) -> AsyncIterator[wire.SubscribeResponse]:
        notices = super().subscribe()
        try:
            async for notice in notices:
                yield notice
        except Rejected:
            yield wire.SubscribeResponse()
        finally:
            await notices.aclose()  # type: ignore[attr-defined]  # a generator it is


BROKEN: tuple[type[Broken], ...] = (
    ReportsTwice,
    ReportsNothing,
    LosesAField,
    OpensByItself,
    ForgetsWhatItOpensWith,
    LosesTheFirstNotice,
    NeverLeaves,
    IgnoresTheOffset,
    ReadsAhead,
    EndsEarly,
    TurnsPieces,
    WrapsTheCallersError,
    AllIsUnreachable,
    LosesAdvice,
    GoesOnWhenCancelled,
    StaysOpen,
    BelievesEverything,
)


def check_broken(kind: type[Broken]) -> None:
    @asynccontextmanager
    async def made(server: Dispatch, identity: Identity, name: str) -> AsyncIterator[Link]:
        link = kind(server, identity, name)
        yield link
        await link.inner.close()

    check_link(made)


def test_the_right_one_among_the_broken_passes() -> None:
    check_broken(Broken)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_link_is_rejected(kind: type[Broken], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "_PATIENCE", 0.3)  # what does not happen is waited for
    with pytest.raises(AssertionError, match="a link must"):
        check_broken(kind)

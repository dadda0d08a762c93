"""What a `Link` must do: carry what a node says to the server, whole and once, and bring back what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import final

from umbel import errors, wire
from umbel.digest import digest_of
from umbel.errors import UmbelError
from umbel.link.base import Data, Link
from umbel.link.dispatch import Dispatch
from umbel.link.ending import ending
from umbel.link.identity import Identity
from umbel.link.sessions import Sessions
from umbel.testing.promise import Promise

Make = Callable[[Dispatch, Identity, str], AbstractAsyncContextManager[Link]]

_A_LINK = Promise("a link")
_require = _A_LINK.require
_PATIENCE = 30.0  # seconds, for what happens at once
_PIECE = 1 << 20
_ENDLESS = 400  # pieces: more than any connection holds back
_HELD = 100  # pieces: less than that
_NAME = "berlin"
_FEDERATION = "0123456789abcdef" * 2
_ID = wire.TaskId(run=_FEDERATION, exchange=2**40, client=_NAME, attempt=3)


def check_link(make: Make) -> None:
    """Check a link of one's own; a node that uses it then works as over any other.

    - what is said arrives as it was said, once, and the answer comes back; many calls may be under way at once;
    - calls are signed, and a session that is over is told apart from other trouble;
    - notices and blobs arrive whole and in order, no faster than they are read;
    - leaving a loop, cancelling a call, and closing the link reach the server;
    - errors of the server arrive as they were raised, and the caller's own as the caller raised them;
    - what no server of ours sends is refused.

    Args:
        make: given a server that takes calls, the node's identity and name, gives a link to it, as a context manager
            that closes it. It is called many times.

    Raises:
        AssertionError: says what the link must do.
    """
    for check in _CHECKS:
        asyncio.run(_checked(check, make))


async def _checked(check: Callable[[_Desk, Link], Awaitable[None]], make: Make) -> None:
    desk, identity = _Desk(), Identity.make()
    async with make(Dispatch(desk, sessions=desk.sessions), identity, _NAME) as link:
        with _A_LINK.doing(f"do what {check.__name__.removeprefix('_check_')} asks of it"):
            async with asyncio.timeout(_PATIENCE * 2):
                if check is not _check_beginning:
                    await link.enrol(wire.EnrolRequest(ticket="secret"))
                    await link.open(wire.OpenSessionRequest())
                await check(desk, link)


# --- the server's side ---------------------------------------------------------------------------


@final
class _Desk:
    """Answers a node, and remembers what it has heard."""

    def __init__(self) -> None:
        self.sessions = Sessions()
        self.enrolled: list[wire.EnrolRequest] = []
        self.opened: list[wire.OpenSessionRequest] = []
        self.reports: list[bytes] = []
        self.heads: list[wire.BlobHead] = []
        self.written = bytearray()
        self.notices: list[wire.SubscribeResponse] = []
        self.given = 0  # pieces of a blob
        self.blob = b""
        self.error: Exception | None = None
        self.waits = False
        self.begun, self.left = asyncio.Event(), asyncio.Event()

    async def enrol(self, request: wire.EnrolRequest) -> wire.EnrolResponse:
        self.enrolled.append(request)
        return wire.EnrolResponse(federation=_FEDERATION)

    async def challenge(self, request: wire.ChallengeRequest) -> wire.ChallengeResponse:
        return wire.ChallengeResponse(challenge=self.sessions.challenge(request.name, 0.0))

    async def open_session(self, request: wire.OpenSessionRequest) -> wire.OpenSessionResponse:
        self.opened.append(request)
        key = self.enrolled[-1].public_key
        return wire.OpenSessionResponse(
            session=self.sessions.open(request.name, request.challenge, request.signature, key, 0.0),
            version=wire.agree(request.versions),
            keepalive=wire.KEEPALIVE,
            chunk=wire.CHUNK,
            inline=wire.INLINE,
            federation=_FEDERATION,
        )

    async def subscribe(self, session: bytes, request: wire.SubscribeRequest) -> AsyncIterator[wire.SubscribeResponse]:
        del session, request
        try:
            for notice in self.notices:
                yield notice
            await self._wait()
        finally:
            self.left.set()

    async def report(self, session: bytes, request: wire.ReportRequest) -> wire.ReportResponse:
        del session
        self.reports.append(request.SerializeToString(deterministic=True))
        if self.waits:
            await self._wait()
        if self.error is not None:
            raise self.error
        return wire.ReportResponse(verdict=wire.ReportResponse.VERDICT_ACCEPTED)

    async def _wait(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()

    async def read_blob(self, session: bytes, request: wire.ReadBlobRequest) -> AsyncIterator[Data]:
        del session
        if not self.blob:
            piece = bytes(_PIECE)
            for _ in range(_ENDLESS):
                self.given += 1
                yield piece
        for begin in range(request.offset, len(self.blob), 1000):
            yield memoryview(self.blob)[begin : begin + 1000]
        if self.error is not None:
            raise self.error

    async def stat_blob(self, session: bytes, request: wire.StatBlobRequest) -> wire.StatBlobResponse:
        del session
        return wire.StatBlobResponse(received=request.digest[0])

    async def write_blob(
        self, session: bytes, head: wire.BlobHead, data: AsyncIterator[Data]
    ) -> wire.WriteBlobResponse:
        del session
        self.heads.append(head)
        self.begun.set()
        try:
            async for piece in data:
                self.written += piece
                if self.error is not None:
                    raise self.error
        finally:
            self.left.set()
        return wire.WriteBlobResponse(received=len(self.written), complete=True)


def _report(number: int = 1, output: str = "") -> wire.ReportRequest:
    report = wire.ReportRequest(id=_ID, seconds=number / 8, state=True, output=output)
    report.metrics.CopyFrom(wire.Metrics(weight=2.5, metrics='{"loss": 0.25}'))
    return report


async def _fails(call: Awaitable[object], kind: type[UmbelError], words: str) -> UmbelError:
    try:
        await call
    except kind as error:
        return error
    except UmbelError as error:
        raise AssertionError(f"a link must {words}; it raised {type(error).__name__}: {error.what}") from error
    raise AssertionError(f"a link must {words}; it raised nothing")


async def _pieces(data: bytes, size: int) -> AsyncIterator[Data]:
    for begin in range(0, len(data), size):
        yield memoryview(data)[begin : begin + size]


def _varied(count: int) -> bytes:
    """Bytes of which no piece is like another."""
    return b"".join(number.to_bytes(4, "big") for number in range(count))


def _head(data: bytes, offset: int = 0) -> wire.BlobHead:
    return wire.BlobHead(digest=digest_of(data), size=offset + len(data), offset=offset)


# --- checks --------------------------------------------------------------------------------------


async def _check_beginning(desk: _Desk, link: Link) -> None:
    await _fails(link.report(_report()), errors.Unauthenticated, "refuse to report before it is open")
    await link.enrol(wire.EnrolRequest(ticket="secret", labels=[wire.Label(name="site", value="Zürich")]))
    heard = desk.enrolled[0]
    _require(heard.name == _NAME and len(heard.public_key) == 32, "enrol with the node's name and key")
    _require((heard.ticket, heard.labels[0].value) == ("secret", "Zürich"), "enrol with what it was given")
    opened = await link.open(wire.OpenSessionRequest(slots=3, datasets=["ecg"], program="test"))
    _require(desk.sessions.node(opened.session) == _NAME, "open the node's session")
    said = desk.opened[0]
    _require((said.slots, *said.datasets, said.program) == (3, "ecg", "test"), "open with what it was given")
    _require(bool(said.versions), "say which versions it speaks")


async def _check_reports(desk: _Desk, link: Link) -> None:
    sent = [_report(number, "ü\n\x00" * number) for number in range(20)]
    sent[0].failure.CopyFrom(wire.Failure(code="client-failed", message="it", traceback="x" * wire.INLINE))
    for report in sent:
        response = await link.report(report)
        _require(response.verdict == wire.ReportResponse.VERDICT_ACCEPTED, "bring back the answer")
    _require(
        desk.reports == [r.SerializeToString(deterministic=True) for r in sent], "carry each message once, as it is"
    )
    await asyncio.gather(*(link.report(_report(number)) for number in range(50)))
    _require(len(desk.reports) == 70, "carry calls that are under way at once")
    stats = await asyncio.gather(*(link.stat_blob(wire.StatBlobRequest(digest=bytes([i] * 32))) for i in range(50)))
    _require([stat.received for stat in stats] == list(range(50)), "give each call its own answer")


async def _check_sessions(desk: _Desk, link: Link) -> None:
    before = desk.sessions.session(_NAME)
    desk.sessions.end(_NAME)
    words = "say that a session is over"
    await _fails(link.report(_report()), errors.Unauthenticated, words)
    await _fails(anext(link.subscribe()), errors.Unauthenticated, words)
    await _fails(link.write_blob(_head(b"abc"), _pieces(b"abc", 3)), errors.Unauthenticated, words)
    opened = await link.open(wire.OpenSessionRequest())
    _require(opened.session != before, "open another session")
    await link.report(_report())
    _require(len(desk.reports) == 1 and not desk.written, "not repeat by itself what was refused")


async def _check_notices(desk: _Desk, link: Link) -> None:
    desk.notices = [wire.SubscribeResponse(goodbye=wire.Goodbye(wait=n, reason="r" * (n % 7))) for n in range(100)]
    desk.notices[3] = wire.SubscribeResponse(revoke=wire.Revoke(tasks=[_ID], reason="why"))
    desk.notices.append(wire.SubscribeResponse(task=_task()))
    heard = []
    async with ending(link.subscribe()) as notices:
        async for notice in notices:
            heard.append(notice)
            if len(heard) == len(desk.notices):
                break
    _require(heard == desk.notices, "bring all notices, in order")
    await _soon(desk.left, "let the server know when the loop is left")


async def _check_hostile_notices(desk: _Desk, link: Link) -> None:
    bad = _task()
    bad.id.run = "../../etc"
    desk.notices = [wire.SubscribeResponse(task=bad)]
    async with ending(link.subscribe()) as notices:
        await _fails(anext(notices), errors.Rejected, "refuse a task that makes no sense")


def _task() -> wire.Task:
    model = wire.Blob(digest=bytes(32), size=5, content=b"model")
    return wire.Task(id=_ID, kind="train", name="train", round=1, call=1, seed="7", model=model, config="{}")


async def _check_blobs_down(desk: _Desk, link: Link) -> None:
    desk.blob = _varied(2500)
    for offset in (0, 1, 10_000, len(desk.blob)):
        request = wire.ReadBlobRequest(digest=bytes(32), offset=offset)
        found = b"".join([bytes(piece) async for piece in link.read_blob(request)])
        _require(found == desk.blob[offset:], "bring a blob's bytes, from the offset to the end")
    desk.error = errors.NotThere("it has gone")
    heard = bytearray()
    try:
        async for piece in link.read_blob(wire.ReadBlobRequest(digest=bytes(32))):
            heard += piece
    except errors.NotThere:
        _require(heard == desk.blob, "bring what came before an error")
    else:
        _require(False, "say that a blob broke off")


async def _check_slow_readers(desk: _Desk, link: Link) -> None:
    async with ending(link.read_blob(wire.ReadBlobRequest(digest=bytes(32)))) as pieces:
        for _ in range(2):
            _require(len(await anext(pieces)) == _PIECE, "bring a blob in the pieces that the server makes")
        for _ in range(_ENDLESS):  # time for the server to go on, if it may
            await link.stat_blob(wire.StatBlobRequest(digest=bytes(32)))
        _require(desk.given <= _HELD, "let the server wait for a reader that is slow")


async def _check_blobs_up(desk: _Desk, link: Link) -> None:
    data = _varied(600_000)
    head = _head(data, offset=77)
    answer = await link.write_blob(head, _pieces(data, wire.CHUNK))
    _require(desk.heads == [head] and bytes(desk.written) == data, "carry a blob's bytes, and its head, as they are")
    _require(answer.complete and answer.received == len(data), "bring back what the server says of a blob")
    answer = await link.write_blob(_head(b""), _pieces(b"", 1))
    _require(answer.complete, "carry a blob without bytes")


async def _check_refused_blobs(desk: _Desk, link: Link) -> None:
    size = 200 * _PIECE
    head = wire.BlobHead(digest=bytes(32), size=size)
    desk.error = errors.DiskFull("there is no room", advice="make some")
    for _ in range(3):
        call = link.write_blob(head, _endless(200))
        error = await _fails(call, errors.DiskFull, "say why the server takes no more of a blob")
        _require(error.advice == "make some", "bring the advice of an error")
    _require(len(desk.written) <= 3 * _HELD * _PIECE, "stop when the server takes no more")
    desk.error = None
    desk.begun.clear()
    desk.left.clear()
    mine = KeyError("mine")

    async def broken() -> AsyncIterator[Data]:
        yield bytes(_PIECE)
        await _soon(desk.begun, "write a blob while it is being read")
        raise mine

    try:
        await link.write_blob(head, broken())
    except KeyError as error:
        _require(error is mine, "raise the caller's own error as it is")
    else:
        _require(False, "raise the caller's own error")
    await _soon(desk.left, "let the server know that no more of a blob comes")
    much = wire.BlobHead(digest=bytes(32), size=1)
    await _fails(link.write_blob(much, _pieces(b"ab", 2)), errors.Rejected, "carry the refusal of too many bytes")


async def _endless(count: int) -> AsyncIterator[Data]:
    piece = bytes(_PIECE)
    for _ in range(count):
        yield piece


async def _check_errors(desk: _Desk, link: Link) -> None:
    for kind in _TOLD:
        desk.error = kind("what happened: ü\nand more", advice="what to do")
        error = await _fails(link.report(_report()), kind, f"bring {kind.__name__} as it was raised")
        said = (error.what, error.advice)
        _require(said == ("what happened: ü\nand more", "what to do"), "bring the words of an error")
    desk.error = RuntimeError("the password is swordfish")
    error = await _fails(link.report(_report()), UmbelError, "bring an error that nobody foresaw")
    _require("swordfish" not in str(error), "not tell what only the server may know")
    desk.error = errors.CorruptFile("/var/lib/swordfish is damaged")
    error = await _fails(link.report(_report()), UmbelError, "bring an error that is the server's own")
    _require("swordfish" not in str(error), "not tell where the server keeps things")
    desk.error = errors.Rejected("long " * 10_000)
    await _fails(link.report(_report()), errors.Rejected, "bring an error that has much to say")
    bad = _report()
    bad.id.client = "Not A Name"
    desk.error = None
    await _fails(link.report(bad), errors.Rejected, "say what the server does not accept")


async def _check_large_messages(desk: _Desk, link: Link) -> None:
    report = _report()
    blob = wire.Blob(digest=bytes(32), size=wire.MESSAGE, content=bytes(wire.MESSAGE))
    report.update.CopyFrom(wire.Update(kind="value", arrays=blob, weight=1))
    await _fails(link.report(report), errors.Rejected, "refuse a message that is too large")
    await link.report(_report())
    _require(len(desk.reports) == 1, "go on after that")


async def _check_cancelling(desk: _Desk, link: Link) -> None:
    desk.waits = True
    call = asyncio.create_task(link.report(_report()))
    await _soon(desk.begun, "make the call")
    call.cancel()
    await asyncio.wait([call])
    _require(call.cancelled(), "end a call that is cancelled")
    await _soon(desk.left, "let the server know that a call is cancelled")
    desk.waits = False
    await link.report(_report())


async def _check_closing(desk: _Desk, link: Link) -> None:
    notices = link.subscribe()
    waiting = asyncio.ensure_future(anext(notices))
    await _soon(desk.begun, "subscribe")
    await link.close()
    await _fails(waiting, errors.Unreachable, "end what is under way when it is closed")
    await _soon(desk.left, "let the server know that it is closed")
    await _fails(link.report(_report()), errors.Unreachable, "make no call when it is closed")
    await link.close()


async def _soon(event: asyncio.Event, words: str) -> None:
    try:
        await asyncio.wait_for(event.wait(), _PATIENCE)
    except TimeoutError:
        raise AssertionError(f"a link must {words}") from None


_TOLD: tuple[type[UmbelError], ...] = (
    errors.Unauthenticated,
    errors.NotAllowed,
    errors.NotThere,
    errors.Rejected,
    errors.Incompatible,
    errors.Unreachable,
    errors.InUse,
    errors.DiskFull,
    errors.Refused,
    errors.AppMissing,
    errors.AppDiffers,
    errors.BadSignature,
)
_CHECKS = (
    _check_beginning,
    _check_reports,
    _check_sessions,
    _check_notices,
    _check_hostile_notices,
    _check_blobs_down,
    _check_slow_readers,
    _check_blobs_up,
    _check_refused_blobs,
    _check_errors,
    _check_large_messages,
    _check_cancelling,
    _check_closing,
)

__all__ = ["check_link"]

"""What goes wrong on the way to the server, in words; and what a stranger may do to the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from tests.unit.link.authority import AUTHORITY, Authority, make_authority
from umbel import wire
from umbel.errors import Incompatible, InUse, NotAllowed, UmbelError, Unauthenticated, Unreachable, UsageError
from umbel.link.address import Address
from umbel.link.dispatch import Dispatch
from umbel.link.grpc_client import GrpcLink
from umbel.link.grpc_server import GrpcServer, serve
from umbel.link.identity import Identity
from umbel.link.reasons import failed
from umbel.link.sessions import Sessions
from umbel.link.status import Status

ME = Identity.make()
FEDERATION = "0123456789abcdef" * 2


class Desk:
    """Enrols everybody; what else it is asked it does not know."""

    async def enrol(self, _: wire.EnrolRequest) -> wire.EnrolResponse:
        return wire.EnrolResponse(federation=FEDERATION)

    async def challenge(self, _: wire.ChallengeRequest) -> wire.ChallengeResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async def stat_blob(self, _: bytes, __: wire.StatBlobRequest) -> wire.StatBlobResponse:
        raise AssertionError("a stranger came through")


@asynccontextmanager
async def listening(authority: Authority | None = AUTHORITY) -> AsyncIterator[GrpcServer]:
    dispatch = Dispatch(cast(Any, Desk()), sessions=Sessions())
    tls = {"certificate": authority.certificate, "key": authority.key} if authority else {}
    server = await serve(dispatch, address="127.0.0.1:0", **tls)
    try:
        yield server
    finally:
        await server.stop()


async def enrol(address: Address, **options: Any) -> wire.EnrolResponse:
    link = GrpcLink(address, ME, "berlin", **options)
    try:
        return await link.enrol(wire.EnrolRequest(ticket="x"))
    finally:
        await link.close()


def said(address: Callable[[int], Address], authority: Authority | None = AUTHORITY, **options: Any) -> UmbelError:
    """What a node is told that cannot reach the server."""

    async def main() -> UmbelError:
        async with listening(authority) as server:
            with pytest.raises(UmbelError) as caught:
                await enrol(address(server.port), **options)
            return caught.value

    error = asyncio.run(main())
    assert error.advice
    assert "localhost" in error.what or "127.0.0.1" in error.what
    return error


def at(port: int, authority: bytes | None = AUTHORITY.der, host: str = "localhost") -> Address:
    return Address(host, port, bytes(16), authority)


def test_who_knows_the_authority_comes_in() -> None:
    async def main() -> None:
        async with listening() as server:
            assert (await enrol(at(server.port))).federation == FEDERATION
            assert (await enrol(Address("localhost", server.port), authority=AUTHORITY.pem)).federation == FEDERATION

    asyncio.run(main())


def test_another_authority_is_told() -> None:
    other = make_authority("elsewhere").der
    same_name = make_authority().der
    for known in (other, same_name, None):
        error = said(lambda port, known=known: at(port, known))  # type: ignore[misc]  # the default is for the loop
        assert type(error) is Unauthenticated
        assert "wrong CA" in error.what


def test_a_server_may_show_another_certificate_while_it_runs() -> None:
    async def main() -> None:
        old, new = make_authority(), make_authority()
        async with listening(old) as server:
            assert (await enrol(at(server.port, old.der))).federation == FEDERATION
            server.renew(new.certificate, new.key)
            assert (await enrol(at(server.port, new.der))).federation == FEDERATION
            with pytest.raises(Unauthenticated):
                await enrol(at(server.port, old.der))

    asyncio.run(main())


def test_another_name_is_told() -> None:
    error = said(lambda port: at(port, host="127.0.0.1"))
    assert type(error) is Unauthenticated
    assert "for another name" in error.what


def test_a_certificate_that_has_expired_is_told() -> None:
    expired = make_authority(days=-1)
    error = said(lambda port: at(port, expired.der), expired)
    assert type(error) is Unauthenticated
    assert "certificate" in error.what  # older versions of gRPC do not say what is wrong with it
    assert "clocks" in error.advice


def test_a_port_without_tls_is_told() -> None:
    error = said(at, None)
    assert type(error) is Unreachable
    assert "does not speak TLS" in error.what
    assert type(said(at, AUTHORITY, tls=False)) is Unreachable


def test_a_closed_port_is_told() -> None:
    error = said(lambda _: at(1))
    assert type(error) is Unreachable
    assert "nobody listens at localhost, port 1" in error.what


def test_a_server_that_does_not_answer_in_time_is_told() -> None:
    async def main() -> None:
        async with listening() as server:
            link = GrpcLink(at(server.port), ME, "berlin", deadline=0.05)
            with pytest.raises(Unreachable, match="not answered in time"):
                await link.open(wire.OpenSessionRequest())
            await link.close()

    asyncio.run(main())


@asynccontextmanager
async def proxy(answer: bytes, target: int) -> AsyncIterator[tuple[int, list[bytes]]]:
    """An HTTP proxy that answers so to CONNECT, and if that is a yes, leads to a port of this machine."""
    asked: list[bytes] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 " + answer + b"\r\n\r\n")
        await writer.drain()
        if answer.startswith(b"200"):
            there, back = await asyncio.open_connection("127.0.0.1", target)
            await asyncio.gather(carry(reader, back), carry(there, writer))
        writer.close()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        server.close()


def test_it_goes_through_an_http_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        authority = make_authority("fed.example.org")
        async with listening(authority) as server, proxy(b"200 OK", server.port) as (port, asked):
            monkeypatch.setenv("grpc_proxy", f"http://127.0.0.1:{port}")
            answer = await enrol(Address("fed.example.org", 8443, bytes(16), authority.der))
            assert answer.federation == FEDERATION
            assert asked[0].startswith(b"CONNECT fed.example.org:8443 ")

    asyncio.run(main())


def test_a_proxy_that_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with proxy(b"403 Forbidden", 0) as (port, _):
            monkeypatch.setenv("grpc_proxy", f"http://127.0.0.1:{port}")
            with pytest.raises(Unreachable, match="the HTTP proxy does not let this machine through"):
                await enrol(Address("fed.example.org", 8443))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (Status("UNAVAILABLE", "DNS resolution failed for x"), Unreachable, "the name fed is not known"),
        (Status("UNAVAILABLE", "errors resolving fed: Domain name not found"), Unreachable, "the name fed"),
        (Status("UNAVAILABLE", "last error: Connection timed out"), Unreachable, "cannot be reached"),
        (Status("UNAVAILABLE", "last error: No route to host"), Unreachable, "cannot be reached"),
        (
            Status("UNAVAILABLE", "ipv4:9.9.9.9:3128: Failed to connect to remote host: Connection refused"),
            Unreachable,
            "9.9.9.9:3128",
        ),
        (
            Status(
                "UNAVAILABLE", "errors resolving p.invalid:3128: [field:hostname lookup error: Domain name not found]"
            ),
            Unreachable,
            "the name p.invalid is not known here: an HTTP proxy",
        ),
        (
            Status("UNAVAILABLE", "errors resolving fed:8443: [field:hostname lookup error: Domain name not found]"),
            Unreachable,
            "the name fed is not known here",
        ),
        (
            Status("UNAVAILABLE", "last error: UNKNOWN: ipv4:9.9.9.9:3128: HTTP proxy returned response code 407"),
            Unreachable,
            "wants to know who asks",
        ),
        (
            Status("UNAVAILABLE", "last error: UNKNOWN: ipv4:9.9.9.9:3128: HTTP proxy returned response code 502"),
            Unreachable,
            "the HTTP proxy cannot reach fed:8443",
        ),
        (
            Status("UNAVAILABLE", "last error: UNKNOWN: ipv4:9.9.9.9:3128: Expected 'H'"),
            Unreachable,
            "through an HTTP proxy at 9.9.9.9:3128, broke off",
        ),
        (
            Status("UNAVAILABLE", "last error: ipv4:9.9.9.9:8443: Socket closed"),
            Unreachable,
            "no connection to fed:8443",
        ),
        (Status("UNAVAILABLE", "last error: CERTIFICATE_VERIFY_FAILED: self-signed"), Unauthenticated, "wrong CA"),
        (Status("UNAVAILABLE", "Peer name fed is not in peer certificate"), Unauthenticated, "another name"),
        (Status("UNAVAILABLE", "Socket closed"), Unreachable, "Socket closed"),
        (Status("UNIMPLEMENTED", "Method not found!"), Incompatible, "older server"),
        (Status("INTERNAL", "RST_STREAM"), Unreachable, "broke off"),
        (Status("UNAVAILABLE", "gone\n  What to do: wait", "not-there"), UmbelError, "gone"),
        (Status("SOMETHING_NEW", "x"), Unreachable, "x"),
        (Status("PERMISSION_DENIED", "no", "a-code-of-tomorrow"), UmbelError, "no"),
    ],
)
def test_what_grpc_says_is_said_in_words(status: Status, kind: type[UmbelError], words: str) -> None:
    error = failed(status, "fed:8443")
    assert isinstance(error, kind)
    assert words in error.what


# --- the server ----------------------------------------------------------------------------------


class Giver(Desk):
    """Lets everybody in, and gives blobs without end."""

    def __init__(self) -> None:
        self.sessions = Sessions()
        self.left = asyncio.Event()

    async def challenge(self, request: wire.ChallengeRequest) -> wire.ChallengeResponse:
        return wire.ChallengeResponse(challenge=self.sessions.challenge(request.name, 0.0))

    async def open_session(self, request: wire.OpenSessionRequest) -> wire.OpenSessionResponse:
        session = self.sessions.open(request.name, request.challenge, request.signature, ME.public, 0.0)
        return wire.OpenSessionResponse(
            session=session,
            version=wire.agree(request.versions),
            keepalive=wire.KEEPALIVE,
            chunk=wire.CHUNK,
            inline=wire.INLINE,
            federation=FEDERATION,
        )

    async def read_blob(self, _: bytes, __: wire.ReadBlobRequest) -> AsyncIterator[bytes]:
        self.left.clear()
        try:
            while True:
                yield bytes(wire.CHUNK)
        finally:
            self.left.set()


def test_a_caller_that_leaves_a_stream_is_nothing_to_log(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        giver = Giver()
        server = await serve(Dispatch(cast(Any, giver), sessions=giver.sessions), address="127.0.0.1:0")
        try:
            for _ in range(60):  # it is a matter of moments
                link = GrpcLink(at(server.port), ME, "berlin", tls=False)
                await link.enrol(wire.EnrolRequest(ticket="x"))
                await link.open(wire.OpenSessionRequest())
                pieces = link.read_blob(wire.ReadBlobRequest(digest=bytes(32)))
                await anext(aiter(pieces))
                await link.close()
                await giver.left.wait()
        finally:
            await server.stop()

    with caplog.at_level(logging.WARNING):
        asyncio.run(asyncio.wait_for(main(), 60))
    assert [record for record in caplog.records if not is_of_another_loop(record)] == []


def is_of_another_loop(record: logging.LogRecord) -> bool:
    """gRPC has one queue for all event loops: something may be left for that of a test before, which is closed."""
    return record.exc_info is not None and "Event loop is closed" in str(record.exc_info[1])


def test_a_place_that_is_taken_is_told() -> None:
    async def main() -> None:
        dispatch = Dispatch(cast(Any, Desk()), sessions=Sessions())
        async with listening() as server:
            with pytest.raises(InUse, match="another program listens"):
                await serve(dispatch, address=f"127.0.0.1:{server.port}")
        with pytest.raises(UsageError, match="cannot listen"):
            await serve(dispatch, address="192.0.2.1:0")
        with pytest.raises(UsageError, match="no address to listen at"):
            await serve(dispatch, address="nonsense")
        other = make_authority().key
        with pytest.raises(UsageError, match="this certificate"):
            await serve(dispatch, address="127.0.0.1:0", certificate=AUTHORITY.certificate, key=other)

    asyncio.run(main())


STAT = wire.NODE["StatBlob"].path
BODY = wire.StatBlobRequest(digest=bytes(32)).SerializeToString()


@pytest.mark.parametrize(
    ("path", "body", "metadata", "code"),
    [
        (STAT, BODY, (), "UNAUTHENTICATED"),
        (STAT, BODY, (("umbel-session-bin", b"x"),), "UNAUTHENTICATED"),
        (
            STAT,
            BODY,
            (("umbel-session-bin", bytes(16)), ("umbel-counter", "-1"), ("umbel-signature-bin", bytes(64))),
            "UNAUTHENTICATED",
        ),
        (
            STAT,
            BODY,
            (("umbel-session-bin", bytes(16)), ("umbel-counter", "1"), ("umbel-signature-bin", bytes(64))),
            "UNAUTHENTICATED",
        ),
        (wire.NODE["Enrol"].path, b"\xff\xff", (), "INVALID_ARGUMENT"),
        (wire.NODE["Enrol"].path, b"", (), "INVALID_ARGUMENT"),
        (wire.NODE["Enrol"].path, bytes(5 << 20), (), "RESOURCE_EXHAUSTED"),
        (wire.NODE["Report"].path, b"", (), "UNIMPLEMENTED"),  # this desk has no such call
        ("/umbel.v1.NodeService/Other", b"", (), "UNIMPLEMENTED"),
        (wire.CONTROL["ListRuns"].path, b"", (("authorization", "Bearer x"),), "UNIMPLEMENTED"),
    ],
)
def test_a_stranger_is_refused(path: str, body: bytes, metadata: Any, code: str) -> None:
    async def main() -> None:
        async with listening() as server:
            trusted = grpc.ssl_channel_credentials(AUTHORITY.pem)
            channel = grpc.aio.secure_channel(f"localhost:{server.port}", trusted)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await cast(Any, channel).unary_unary(path)(body, metadata=metadata)
            assert caught.value.code().name == code
            await channel.close(None)

    asyncio.run(main())


def test_what_nobody_foresaw_is_in_the_servers_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Desk):
        async def enrol(self, _: wire.EnrolRequest) -> wire.EnrolResponse:
            raise RuntimeError("the password is swordfish")

    async def main() -> UmbelError:
        server = await serve(Dispatch(cast(Any, Failing()), sessions=Sessions()), address="127.0.0.1:0")
        try:
            with pytest.raises(UmbelError) as caught:
                await enrol(at(server.port), tls=False)
        finally:
            await server.stop()
        return caught.value

    with caplog.at_level(logging.ERROR, "umbel"):
        error = asyncio.run(main())
    record = next(record for record in caplog.records if record.message.startswith("call-failed: incident "))
    incident = record.message.split()[2].strip(",")
    assert incident in str(error)
    assert "swordfish" not in str(error)
    assert record.exc_info
    assert "swordfish" in str(record.exc_info[1])


@pytest.mark.parametrize("letter", ["x", "\u00fc", "\u20ac", "%", "\n"])
def test_an_error_arrives_however_long_it_is(letter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above 8 KiB, as it travels, gRPC drops some and says something else."""

    async def enrolled(self: Desk, request: wire.EnrolRequest) -> wire.EnrolResponse:
        del self, request
        raise NotAllowed(letter * 10_000, advice=letter * 10_000)

    async def story() -> None:
        monkeypatch.setattr(Desk, "enrol", enrolled)
        async with listening(None) as server:
            for _ in range(10):
                with pytest.raises(NotAllowed) as caught:
                    await enrol(Address("127.0.0.1", server.port, bytes(16)), tls=False)
                assert caught.value.what.startswith(letter * 300)
                assert caught.value.advice.startswith(letter * 100)

    asyncio.run(story())

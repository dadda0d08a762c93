"""What ``umbel doctor`` looks at on the way to a server: port, TLS, certificate, clock, ticket, token, session."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from umbel.cli.finding import Finding, bad, failed, ok, warning
from umbel.cli.joined import Joined, own_identity
from umbel.cli.localchecks import SOON
from umbel.cli.printing import clock, span
from umbel.errors import Rejected, UmbelError, Unauthenticated
from umbel.link.address import Address

CLOCK = 300.0  # seconds that two clocks may differ
_PATIENCE = 10.0  # seconds for a connection


def look_at_way(address: Address, *, proxied: bool = False) -> Iterator[Finding]:
    """Name, port, TLS and certificate of a server; ends at the first that is wrong.

    Args:
        address: of the server.
        proxied: do connections go through a proxy? Then the server is not asked directly.
    """
    if proxied:
        yield warning("way", "the way goes through a proxy, and is not looked at step by step", "see the line above")
        return
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError:
        yield bad(
            "name",
            f"the name {address.host} is not known here",
            "check the spelling; then network, VPN and name server of this machine",
        )
        return
    yield ok("name", f"{address.host} is {found[0][4][0]}")
    try:
        connection = socket.create_connection((address.host, address.port), timeout=_PATIENCE)
    except OSError as error:
        yield _closed(address, error)
        return
    yield ok("port", f"{address.host} listens on port {address.port}")
    with connection:
        yield from _look_at_certificate(address, connection)


def _closed(address: Address, error: OSError) -> Finding:
    if isinstance(error, ConnectionRefusedError):
        return bad(
            "port",
            f"nobody listens at {address.host}, port {address.port}",
            "check the port; see that `umbel server` runs there",
        )
    return bad(
        "port",
        f"{address.host}, port {address.port}, cannot be reached: {error}",
        f"check network and firewalls: outgoing here, and incoming on port {address.port} there",
    )


def _look_at_certificate(address: Address, connection: socket.socket) -> Iterator[Finding]:
    from umbel.server.certificates import problem

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # what is wrong with it is looked at below
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(connection, server_hostname=address.host) as secured:
            certificate = secured.getpeercert(binary_form=True) or b""
    except (OSError, ValueError) as error:
        yield bad(
            "TLS",
            f"{address.target} answers, but does not speak TLS ({error})",
            "check the port: it may be that of another program, or of the pages for operators",
        )
        return
    wrong = problem(certificate, address.host, time.time(), authority=address.authority or b"")
    if wrong:
        yield bad("certificate", f"the certificate of {address.target}: {wrong}", _certificate_advice(wrong))
        return
    yield ok(
        "certificate",
        f"it is for {address.host}" + (", and of the authority of this address" * bool(address.authority)),
    )
    yield from _look_at_end(certificate, "the server's certificate")
    if address.authority:
        yield from _look_at_end(address.authority, "the server's certificate authority")


def _certificate_advice(wrong: str) -> str:
    if "another authority" in wrong:
        return (
            "use an address that this server printed: it carries its certificate; was the server set up anew? then "
            "join, or log in, again"
        )
    if "not for" in wrong:
        return "use the name that the server printed; or start the server with --name and this name"
    return "check the clocks of both machines; restarting the server renews its certificate"


def _look_at_end(certificate: bytes, what: str) -> Iterator[Finding]:
    from cryptography import x509

    found = x509.load_der_x509_certificate(certificate)
    end, left = found.not_valid_after_utc.timestamp(), found.not_valid_after_utc.timestamp() - time.time()
    own = "authority" in what
    if left < (SOON if own else 14 * 86400.0):
        advice = (
            "plan for every node to join again with a new authority"
            if own
            else "restart the server, which renews it; one that was brought must be renewed where it came from"
        )
        yield warning("certificate", f"{what} expires in {span(max(left, 1))}, on {clock(end)}", advice)


def look_at_clock(there: float, before: float, after: float) -> Finding:
    """Two clocks.

    Args:
        there: seconds since 1970, by the server.
        before: the same by this machine, when the server was asked.
        after: when it had answered.
    """
    off = (before + after) / 2 - there
    if abs(off) > CLOCK:
        way = "ahead of" if off > 0 else "behind"
        return bad(
            "clock",
            f"the clock of this machine is {span(abs(off))} {way} that of the server",
            "set the clock of the one that is wrong, for example with NTP",
        )
    return ok("clock", f"it differs from the server's by {abs(off):.1f} s")


def look_at_secret(address: Address) -> tuple[list[Finding], Any]:
    """Does the server take the secret of an address, as a token or as a ticket? With what GetServer said, or None."""
    from umbel.remote.line import Line
    from umbel.remote.session import greeting

    before = time.time()
    try:
        with Line(address, deadline=_PATIENCE) as line:
            said = line.call("GetServer", greeting())
    except Unauthenticated as error:
        return _as_ticket(address, error), None
    except UmbelError as error:
        return [failed("token", error)], None
    found = [
        ok("token", f"the server, {said.program}, knows you as {said.person}, with the role {said.role}"),
        look_at_clock(said.time, before, time.time()),
    ]
    left = said.authority_expires - time.time()
    if said.authority_expires and left < SOON:
        found.append(
            warning(
                "certificate",
                f"the server's certificate authority expires in {span(max(left, 1))}",
                "plan for every node to join again with a new authority",
            )
        )
    return found, said


def _as_ticket(address: Address, no_token: Unauthenticated) -> list[Finding]:
    """Is the secret a ticket? If it is not known as that either, a token that was good once is told."""
    before = time.time()
    try:
        answer = asyncio.run(_tried_ticket(address))
    except UmbelError as error:
        if "unknown here" not in error.what:
            return [failed("ticket", error)]
        if "not known here" not in no_token.what:
            return [failed("token", no_token)]
        return [bad("ticket", "the server knows neither a ticket nor a token like this", error.advice)]
    return [ok("ticket", "a node can join with this address"), look_at_clock(answer.time, before, time.time())]


async def _tried_ticket(address: Address) -> Any:
    from umbel import wire
    from umbel.link.grpc_client import GrpcLink
    from umbel.link.identity import Identity

    link = GrpcLink(address, Identity.make(), "doctor", deadline=_PATIENCE)
    try:
        return await link.enrol(wire.EnrolRequest(ticket=address.secret_text, check=True))
    finally:
        await link.close()


def look_at_session(directory: Path, member: Joined) -> list[Finding]:
    """Does the server let this node in? Not asked while the node runs: a new session would end its own."""
    from umbel.errors import InUse
    from umbel.store.lock import DirectoryLock

    try:
        lock = DirectoryLock(directory)
    except InUse:
        return [ok("session", f"node {member.name} is running; what it says of its connection stands in its output")]
    except UmbelError as error:
        return [failed("directory", error)]
    try:
        before = time.time()
        answer = asyncio.run(_session(directory, member))
    except Rejected as error:
        return [failed("session", error)]
    except UmbelError as error:
        return [failed("session", error)]
    finally:
        lock.close()
    return [
        ok("session", f"the server, {answer.program}, lets node {member.name} in"),
        look_at_clock(answer.time, before, time.time()),
    ]


async def _session(directory: Path, member: Joined) -> Any:
    from umbel import wire
    from umbel.link.grpc_client import GrpcLink

    identity = own_identity(directory)
    link = GrpcLink(member.address, identity, member.name, authority=member.pem, deadline=_PATIENCE)
    try:
        return await link.open(wire.OpenSessionRequest(program="umbel doctor", slots=1, time=time.time()))
    finally:
        await link.close()


__all__ = [
    "CLOCK",
    "look_at_clock",
    "look_at_secret",
    "look_at_session",
    "look_at_way",
]

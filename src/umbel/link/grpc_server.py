"""The server's end of the link over gRPC and TLS."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from typing import Any, final

import grpc
import grpc.aio

from umbel.errors import InUse, UmbelError, UsageError
from umbel.link.allocation import connections
from umbel.link.dispatch import Broken, Dispatch, Metadata
from umbel.link.ending import ending
from umbel.link.grpc_options import SERVER
from umbel.link.status import CODE, Status
from umbel.wire.methods import Method

_WHERE = 'name an address of this machine, as in "0.0.0.0:8443" or "[::]:8443"'


@final
class Credentials:
    """What a server shows to who connects; may be replaced while it runs.

    Args:
        certificate: PEM; see `serve`.
        key: PEM.
    """

    def __init__(self, certificate: bytes, key: bytes) -> None:
        self._next: Any = None
        first = grpc.ssl_server_certificate_configuration([(key, certificate)])
        self.for_grpc = grpc.dynamic_ssl_server_credentials(first, self._changed, require_client_authentication=False)

    def renew(self, certificate: bytes, key: bytes) -> None:
        """Show this from now on."""
        self._next = grpc.ssl_server_certificate_configuration([(key, certificate)])

    def _changed(self) -> Any:
        """What gRPC asks before each handshake, in a thread of its own; None: nothing has changed."""
        changed, self._next = self._next, None
        return changed


@final
class GrpcServer:
    """A server that takes calls; made by `serve`.

    Attributes:
        port: where it listens.
    """

    def __init__(self, server: grpc.aio.Server, port: int, shown: Credentials | None = None) -> None:
        self._server: grpc.aio.Server | None = server
        self._shown = shown
        self.port = port

    def renew(self, certificate: bytes, key: bytes) -> None:
        """Show another certificate to who connects from now on; connections that are open stay."""
        if self._shown is not None:
            self._shown.renew(certificate, key)

    async def stop(self, grace: float = 0.0) -> None:
        """Take no more calls; those that are under way may end within so many seconds, then they are cut off."""
        if self._server is not None:
            await self._server.stop(grace)
            self._server = None  # gRPC's own wants the event loop when it is collected, so that must be soon

    async def wait(self) -> None:
        """Return when the server has stopped."""
        if self._server is not None:
            await self._server.wait_for_termination()


async def serve(
    dispatch: Dispatch, *, address: str, certificate: bytes | None = None, key: bytes | None = None
) -> GrpcServer:
    """Take calls of nodes and people.

    Args:
        dispatch: takes the calls: `Dispatch(nodes, control, sessions=..., authorize=...)`.
        address: where to listen, "0.0.0.0:8443" or "[::]:8443"; port 0: any that is free.
        certificate: the server's certificate, and those that it takes to get to its authority (PEM). None: no TLS, for
            tests and behind something that ends it.
        key: the certificate's key (PEM); P-256 or RSA. Ed25519 does not work with gRPC.

    Raises:
        InUse: another process listens there.
        UsageError: the address, the certificate or the key cannot be used.
    """
    server = grpc.aio.server(options=[*SERVER, ("grpc.max_allowed_incoming_connections", connections())])
    services: dict[str, dict[str, Any]] = {}
    for method in dispatch.methods.values():
        _, service, name = method.path.split("/")
        services.setdefault(service, {})[name] = _handler(dispatch, method)
    for service, handlers in services.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    shown = Credentials(certificate, key) if certificate is not None and key is not None else None
    try:
        port = _listen(server, address, shown)
    except UmbelError as error:
        await server.stop(None)
        del server
        raise error.with_traceback(None) from None  # frames would hold on to the server, as above
    await server.start()
    return GrpcServer(server, port, shown)


def _listen(server: grpc.aio.Server, address: str, shown: Credentials | None) -> int:
    try:
        port = (
            server.add_secure_port(address, shown.for_grpc) if shown is not None else server.add_insecure_port(address)
        )
    except (RuntimeError, ValueError) as error:
        raise _why_not(address) from error
    if not port:  # how older versions say it
        raise _why_not(address)
    return port


def _why_not(address: str) -> UmbelError:
    """Why gRPC cannot listen there: it says it to its own log only, so it is tried once more."""
    host, _, port = address.rpartition(":")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(place)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return InUse(f"another program listens at {address}", advice="stop it, or choose another port")
        return UsageError(f"cannot listen at {address}: {error.strerror or error}", advice=_WHERE)
    except ValueError:
        return UsageError(f"{address!r} is no address to listen at", advice=_WHERE)
    return UsageError(
        f"cannot listen at {address} with this certificate",
        advice="check that certificate and key are PEM, belong together, and that the key is P-256 or RSA",
    )


def _handler(dispatch: Dispatch, method: Method) -> Any:
    """What gRPC calls for a method: bytes in, bytes out."""
    path = method.path

    async def unary(body: bytes, context: Any) -> Any:
        try:
            return await dispatch.unary(path, body, _metadata(context))
        except Broken as error:
            return await _abort(context, error.status)

    async def stream(body: bytes, context: Any) -> None:
        try:
            async with ending(dispatch.stream(path, body, _metadata(context))) as messages:
                async for message in messages:
                    await context.write(message)  # returns when the message has left, so one at most is in flight
        except grpc.aio.InternalError:
            pass  # the caller has gone: to gRPC a reason to log a traceback, here what nodes do each day
        except Broken as error:
            await _abort(context, error.status)

    async def upload(messages: AsyncIterator[bytes], context: Any) -> Any:
        try:
            return await dispatch.upload(path, aiter(messages), _metadata(context))
        except Broken as error:
            return await _abort(context, error.status)

    if method.uploads:
        return grpc.stream_unary_rpc_method_handler(upload)
    if method.streams:
        return grpc.unary_stream_rpc_method_handler(stream)
    return grpc.unary_unary_rpc_method_handler(unary)


def _metadata(context: Any) -> Metadata:
    return dict(context.invocation_metadata() or ())


async def _abort(context: Any, status: Status) -> Any:
    await context.abort(grpc.StatusCode[status.code], status.text, ((CODE, status.name),))


__all__ = ["GrpcServer", "serve"]

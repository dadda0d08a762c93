"""The link over gRPC and TLS."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import grpc
import grpc.aio

from umbel.errors import Unreachable
from umbel.link.address import Address
from umbel.link.ending import ending
from umbel.link.grpc_options import CLIENT
from umbel.link.identity import Identity
from umbel.link.person import PersonLink
from umbel.link.reasons import failed
from umbel.link.signing import SignedLink
from umbel.link.status import CODE, Status
from umbel.wire.methods import CONTROL, NODE

DEADLINE = 30.0
"""Seconds that a call with one answer may take; then it is not known whether it arrived."""

_END: Any = vars(grpc.aio)["EOF"]  # unknown to the stubs
_FORGOTTEN = "Internal error from Core"
Metadata = Mapping[str, str | bytes]


@final
class GrpcChannel:
    """A `Channel` over one connection, made when it is first used; through an HTTP proxy if gRPC is told of one.

    Args:
        address: of the server; its secret is not used.
        authority: the certificate of the authority that has signed the server's (PEM); None: what the address says, and
            if that has none, those that the system knows.
        deadline: seconds that a call with one answer may take.
        tls: False where something in front of the server ends TLS, and this machine is behind that, too.
    """

    def __init__(
        self, address: Address, authority: bytes | None = None, *, deadline: float = DEADLINE, tls: bool = True
    ) -> None:
        self._target = address.target
        self._deadline = deadline
        where = f"dns:///{self._target}"
        if tls:
            trusted = grpc.ssl_channel_credentials(authority or address.pem)
            self._channel = grpc.aio.secure_channel(where, trusted, options=CLIENT)
        else:
            self._channel = grpc.aio.insecure_channel(where, options=CLIENT)
        self._under_way: set[Any] = set()
        # bytes in, bytes out: made once for each call there is
        self._calls: dict[str, Any] = {}
        for method in (*NODE.values(), *CONTROL.values()):
            form = f"{'stream' if method.uploads else 'unary'}_{'stream' if method.streams else 'unary'}"
            self._calls[method.path] = getattr(self._channel, form)(method.path)

    async def unary(self, path: str, body: bytes, metadata: Metadata) -> bytes:
        """One message there, one back."""
        with self._mapped(), self._call(path, metadata, body, timeout=self._deadline) as call:
            answer: bytes = await call
            return answer

    async def stream(self, path: str, body: bytes, metadata: Metadata) -> AsyncIterator[bytes]:
        """One message there, many back. One is asked for at a time: who reads slowly makes the server wait."""
        with self._mapped(), self._call(path, metadata, body) as call:
            while (message := await call.read()) is not _END:
                yield message
            await _raise_for(call)

    async def upload(self, path: str, messages: AsyncIterator[bytes], metadata: Metadata) -> bytes:
        """Many messages there, one back. The next is asked for when the last has left."""
        ends: list[grpc.aio.AioRpcError] = []
        with self._mapped(), self._call(path, metadata) as call:
            call.add_done_callback(lambda call: ends.append(_end_of(call)))
            try:
                async with ending(messages):
                    await _write_all(call, messages)
                answer: bytes = await call
            except grpc.aio.AioRpcError as error:
                # a message that meets the end of the call makes gRPC forget what the server has said
                raise next((end for end in ends if end.details() != _FORGOTTEN), error) from None
            return answer

    async def close(self) -> None:
        """End all calls, and the connection."""
        for call in list(self._under_way):
            call.cancel()  # gRPC before 1.84 overlooks those that nobody waits for, and keeps the connection for them
        await self._channel.close(None)

    @contextmanager
    def _call(self, path: str, metadata: Metadata, *body: bytes, timeout: float | None = None) -> Iterator[Any]:
        """A call; it ends with the block, if it has not before."""
        call = self._calls[path](*body, metadata=tuple(metadata.items()), timeout=timeout)
        self._under_way.add(call)
        try:
            yield call
        finally:
            self._under_way.discard(call)
            call.cancel()

    @contextmanager
    def _mapped(self) -> Any:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise failed(status_from(error), self._target) from error
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise Unreachable(f"the link to {self._target} was closed") from None  # while the call was under way
        except grpc.aio.UsageError as error:  # after it was closed
            raise Unreachable(f"the link to {self._target} is closed", advice="make another") from error


async def _write_all(call: Any, messages: AsyncIterator[bytes]) -> None:
    async for message in messages:
        try:
            await call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the server has ended the call; why, the call itself says, and this error does not
    await call.done_writing()


def _end_of(call: Any) -> grpc.aio.AioRpcError:
    """How a call has ended that is over."""
    parts = (call.code(), call.initial_metadata(), call.trailing_metadata(), call.details())
    code, initial, trailing, details = map(_at_once, parts)
    return grpc.aio.AioRpcError(code, initial, trailing, details, None)


def _at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine gives that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise AssertionError("a call that is over has something to wait for")


async def _raise_for(call: Any) -> None:
    """Raise the error that a stream ended with."""
    code = await call.code()
    if code is not grpc.StatusCode.OK:
        initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
        raise grpc.aio.AioRpcError(code, initial, trailing, await call.details(), None)


def status_from(error: Any) -> Status:
    """How a call ended, as gRPC has it."""
    name = next((value for key, value in error.trailing_metadata() or () if key == CODE), "")
    return Status(error.code().name, error.details() or "", name if isinstance(name, str) else "")


@final
class GrpcLink(SignedLink):
    """A `Link` over gRPC and TLS.

    Args:
        address: of the server.
        identity: the node's key.
        name: the node's name.
        authority: the certificate of the authority that has signed the server's (PEM); None: what the address says, and
            if that has none, those that the system knows.
        deadline: seconds that a call with one answer may take.
        tls: see `GrpcChannel`.
        now: seconds since 1970.
    """

    def __init__(
        self,
        address: Address,
        identity: Identity,
        name: str,
        *,
        authority: bytes | None = None,
        deadline: float = DEADLINE,
        tls: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(GrpcChannel(address, authority, deadline=deadline, tls=tls), identity, name, now=now)


def grpc_person(
    address: Address,
    token: str | None = None,
    *,
    authority: bytes | None = None,
    deadline: float = DEADLINE,
    tls: bool = True,
) -> PersonLink:
    """A person's link over gRPC and TLS.

    Args:
        address: of the server.
        token: who one is; None: the secret of the address.
        authority: see `GrpcLink`.
        deadline: seconds that a call with one answer may take.
        tls: see `GrpcChannel`.
    """
    channel = GrpcChannel(address, authority, deadline=deadline, tls=tls)
    return PersonLink(channel, token if token is not None else address.secret_text)


__all__ = ["DEADLINE", "GrpcChannel", "GrpcLink", "grpc_person", "status_from"]

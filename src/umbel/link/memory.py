"""The link in memory: what a node says is signed, becomes bytes, and is checked as if it had come from far away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar, final

from umbel.errors import Rejected, UmbelError, Unreachable
from umbel.link.dispatch import Broken, Dispatch, Metadata
from umbel.link.ending import ending
from umbel.link.identity import Identity
from umbel.link.person import PersonLink
from umbel.link.signing import SignedLink
from umbel.link.status import Status, error_of
from umbel.wire import MESSAGE

T = TypeVar("T")


@final
class MemoryChannel:
    """A `Channel` to a server in the same event loop."""

    def __init__(self, server: Dispatch) -> None:
        self._server = server
        self._closed = False
        self._under_way: set[asyncio.Future[Any]] = set()

    async def unary(self, path: str, body: bytes, metadata: Metadata) -> bytes:
        """One message there, one back."""
        self._look(body)
        return await self._answered(self._server.unary(path, body, metadata))

    async def stream(self, path: str, body: bytes, metadata: Metadata) -> AsyncIterator[bytes]:
        """One message there, many back."""
        self._look(body)
        async with ending(self._server.stream(path, body, metadata)) as messages:
            while (message := await self._answered(_next(messages))) is not None:
                self._look(message)
                yield message

    async def upload(self, path: str, messages: AsyncIterator[bytes], metadata: Metadata) -> bytes:
        """Many messages there, one back."""
        sent = _Sent(messages, self._look)
        try:
            return await self._answered(self._server.upload(path, sent, metadata))
        except UmbelError:
            if sent.error is not None:  # the caller's own, as it was
                raise sent.error from None
            raise

    async def close(self) -> None:
        """End all calls."""
        self._closed = True
        for call in self._under_way:
            call.cancel()

    async def _answered(self, call: Coroutine[Any, Any, T]) -> T:
        """What comes of a call, unless the link is closed before."""
        task = asyncio.ensure_future(call)
        self._under_way.add(task)
        try:
            if self._closed:
                task.cancel()
            return await task
        except Broken as error:
            raise error_of(error.status) from error
        except asyncio.CancelledError:
            if (mine := asyncio.current_task()) is not None and mine.cancelling():
                raise
            raise Unreachable("the link is closed", advice="make another") from None
        finally:
            self._under_way.discard(task)

    def _look(self, message: bytes) -> None:
        if len(message) > MESSAGE:
            raise Rejected(f"a message has {len(message):,} bytes, at most {MESSAGE:,} are accepted")


async def _next(messages: AsyncIterator[bytes]) -> bytes | None:
    return await anext(messages, None)


@final
class _Sent:
    """What is sent, until the caller's own code raises; the server is told no more than that."""

    def __init__(self, messages: AsyncIterator[bytes], look: Callable[[bytes], None]) -> None:
        self._messages = messages
        self._look = look
        self.error: Exception | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            message = await anext(self._messages)
            self._look(message)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.error = error
            raise Broken(Status("CANCELLED", "the caller has given up")) from error
        return message


@final
class MemoryLink(SignedLink):
    """A `Link` to a server in the same event loop.

    Args:
        server: takes the calls.
        identity: the node's key.
        name: the node's name.
        now: seconds since 1970.
    """

    def __init__(
        self, server: Dispatch, identity: Identity, name: str, *, now: Callable[[], float] = time.time
    ) -> None:
        super().__init__(MemoryChannel(server), identity, name, now=now)


def memory_person(server: Dispatch, token: str | None) -> PersonLink:
    """A person's link to a server in the same event loop."""
    return PersonLink(MemoryChannel(server), token)


__all__ = ["MemoryChannel", "MemoryLink", "memory_person"]

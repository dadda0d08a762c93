"""The link in memory: what a node says is signed, becomes bytes, and is checked as if it had come from far away."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import final

from umbel.errors import Rejected, Unreachable
from umbel.link.dispatch import Broken, Dispatch, Metadata
from umbel.link.ending import Source, ending
from umbel.link.identity import Identity
from umbel.link.person import PersonLink
from umbel.link.signing import SignedLink
from umbel.link.status import error_of
from umbel.wire import MESSAGE


@final
class MemoryChannel:
    """A `Channel` to a server in the same event loop."""

    def __init__(self, server: Dispatch) -> None:
        self._server = server
        self._closed = False

    async def unary(self, path: str, body: bytes, metadata: Metadata) -> bytes:
        """One message there, one back."""
        self._look(body)
        try:
            return await self._server.unary(path, body, metadata)
        except Broken as error:
            raise error_of(error.status) from error

    async def stream(self, path: str, body: bytes, metadata: Metadata) -> AsyncIterator[bytes]:
        """One message there, many back."""
        self._look(body)
        try:
            async with ending(self._server.stream(path, body, metadata)) as messages:
                async for message in messages:
                    self._look(message)
                    yield message
        except Broken as error:
            raise error_of(error.status) from error

    async def upload(self, path: str, messages: AsyncIterator[bytes], metadata: Metadata) -> bytes:
        """Many messages there, one back."""
        self._look(b"")
        source = Source(messages)
        try:
            async with ending(self._sent(source)) as sent:
                return await self._server.upload(path, sent, metadata)
        except Broken as error:
            raise source.error or error_of(error.status) from error

    async def close(self) -> None:
        """No call is made any more."""
        self._closed = True

    async def _sent(self, messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for message in messages:
            self._look(message)
            yield message

    def _look(self, message: bytes) -> None:
        if self._closed:
            raise Unreachable("the link is closed", advice="make another")
        if len(message) > MESSAGE:
            raise Rejected(f"a message has {len(message):,} bytes, at most {MESSAGE:,} are accepted")


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

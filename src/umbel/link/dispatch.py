"""The server's end of every link: who calls, what was sent, whom to ask, and how it ended.

Bytes in, bytes out; what carries them does not matter. So whatever goes wrong over gRPC goes wrong in memory, too.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, final

from umbel import wire
from umbel.errors import Incompatible, Rejected, UmbelError, Unauthenticated
from umbel.link.base import ControlCalls, Data, NodeCalls
from umbel.link.ending import ending
from umbel.link.pieces import ahead
from umbel.link.sessions import Sessions
from umbel.link.status import Status, internal, status_of
from umbel.wire.frames import read_frame, read_head, write_data
from umbel.wire.methods import CONTROL, NODE, UNSIGNED, Method

logger = logging.getLogger("umbel")

Authorize = Callable[[str | None, str], Any]
"""Given a token, or None, and the name of a call of `ControlService`, gives the person; or raises."""
SESSION, COUNTER, SIGNATURE = "umbel-session-bin", "umbel-counter", "umbel-signature-bin"
"""Names of the metadata of a signed call."""
AUTHORIZATION = "authorization"
_BLOBS = frozenset({"ReadBlob", "ReadRunBlob"})
_NOT_SIGNED = "this call must be signed"

Metadata = Mapping[str, str | bytes]


@final
class Broken(Exception):
    """A call that went wrong, as the caller is told.

    Attributes:
        status: how it ended.
    """

    def __init__(self, status: Status) -> None:
        super().__init__(status.text)
        self.status = status


@final
class Dispatch:
    """Takes calls of nodes and people, and gives them to whoever answers.

    Args:
        nodes: answers nodes.
        control: answers people; None: nobody does.
        sessions: of the nodes.
        authorize: says who a token's person is, and refuses what the role does not permit.
        told: what a caller is told instead of an error.
    """

    def __init__(
        self,
        nodes: NodeCalls,
        control: ControlCalls | None = None,
        *,
        sessions: Sessions,
        authorize: Authorize | None = None,
        told: Callable[[UmbelError], UmbelError] = lambda error: error,
    ) -> None:
        self._sessions = sessions
        self._authorize, self._tells = authorize, told
        self._answers: dict[str, Callable[..., Any]] = {}
        self.methods: dict[str, Method] = {}
        for table, answers in ((NODE, nodes), (CONTROL, control)):
            for method in table.values():
                answer = getattr(answers, method.attribute, None)
                if answer is not None:
                    self._answers[method.path] = answer
                    self.methods[method.path] = method

    async def unary(self, path: str, body: bytes, metadata: Metadata) -> bytes:
        """One message in, one out.

        Raises:
            Broken: it went wrong.
        """
        async with self._told(path):
            method, who = self._admit(path, body, metadata)
            request = _parsed(method, body)
            response = await self._answers[path](*who, request)
            return _serialized(response)

    async def stream(self, path: str, body: bytes, metadata: Metadata) -> AsyncIterator[bytes]:
        """One message in, many out. The next is asked for when the last was taken.

        Raises:
            Broken: it went wrong.
        """
        async with self._told(path):
            method, who = self._admit(path, body, metadata)
            request = _parsed(method, body)
            async with ending(self._answers[path](*who, request)) as answers:
                if method.name in _BLOBS:
                    async with ending(ahead(answers, read_frame)) as messages:
                        async for message in messages:
                            yield message
                else:
                    async for response in answers:
                        yield _serialized(response)

    async def upload(self, path: str, messages: AsyncIterator[bytes], metadata: Metadata) -> bytes:
        """Many messages in, one out.

        Raises:
            Broken: it went wrong.
        """
        async with self._told(path):
            first = await anext(messages, None)
            if first is None:
                raise Rejected("a blob was announced, and nothing sent")
            _, who = self._admit(path, first, metadata)
            head = read_head(first)
            wire.check(head)
            async with ending(_pieces(head, messages)) as pieces:
                response = await self._answers[path](*who, head, pieces)
            return _serialized(response)

    @asynccontextmanager
    async def _told(self, path: str) -> AsyncIterator[None]:
        """Errors of ours reach the caller; of others it learns a number, under which the log has the rest."""
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit, Broken):
            raise
        except UmbelError as error:
            told = self._tells(error)
            raise Broken(status_of(told) or _incident(path, told)) from error
        except Exception as error:  # a call ends here
            raise Broken(_incident(path, error)) from error

    def _admit(self, path: str, body: bytes, metadata: Metadata) -> tuple[Method, tuple[Any, ...]]:
        """The call, and on whose behalf it is made."""
        method = self.methods.get(path)
        if method is None:
            raise Incompatible(f"this server does not know the call {path[:80]!r}", advice="update the server")
        if path.startswith("/umbel.v1.ControlService/"):
            return method, (self._person(method, metadata),)
        return method, () if method.name in UNSIGNED else (self._session(path, body, metadata),)

    def _person(self, method: Method, metadata: Metadata) -> Any:
        if self._authorize is None:
            raise Unauthenticated("this server takes no calls of people")
        given = metadata.get(AUTHORIZATION, "")
        kind, _, token = (given if isinstance(given, str) else "").partition(" ")
        return self._authorize(token.strip() if kind.lower() == "bearer" and token.strip() else None, method.name)

    def _session(self, path: str, body: bytes, metadata: Metadata) -> bytes:
        session, counter, signature = (metadata.get(name) for name in (SESSION, COUNTER, SIGNATURE))
        if not (isinstance(session, bytes) and isinstance(counter, str) and isinstance(signature, bytes)):
            raise Unauthenticated(_NOT_SIGNED, advice="open a session first; see docs/wire.md")
        if not (counter.isascii() and counter.isdigit() and len(counter) < 20):
            raise Unauthenticated(f"a counter is a number, not {counter[:20]!r}")
        self._sessions.verify(session, int(counter), path, body, signature)
        return session


async def _pieces(head: wire.BlobHead, messages: AsyncIterator[bytes]) -> AsyncIterator[Data]:
    """The data of an upload: no piece larger than a chunk, and no more than the head says."""
    left = head.size - head.offset
    async for message in messages:
        data = write_data(message)
        if len(data) > wire.CHUNK:
            raise Rejected(f"a chunk of a blob has {len(data):,} bytes, at most {wire.CHUNK:,} are accepted")
        left -= len(data)
        if left < 0:
            raise Rejected(f"more was sent than the {head.size:,} bytes that the blob's head says")
        yield data


def _parsed(method: Method, body: bytes) -> Any:
    request = wire.parse(method.request, body)
    wire.check(request)
    return request


def _serialized(response: Any) -> bytes:
    data: bytes = response.SerializeToString()
    return data


def _incident(path: str, error: Exception) -> Status:
    incident = secrets.token_hex(4)
    logger.error("call-failed: incident %s, %s", incident, path, exc_info=error)
    return internal(incident)


__all__ = ["AUTHORIZATION", "COUNTER", "SESSION", "SIGNATURE", "Authorize", "Broken", "Dispatch", "Metadata"]

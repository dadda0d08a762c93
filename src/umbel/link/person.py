"""A person's link to the server: the calls of `ControlService`, with a token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, final

from google.protobuf.message import Message

from umbel import wire
from umbel.errors import FormatError, Rejected
from umbel.link.base import Channel, Data
from umbel.link.dispatch import AUTHORIZATION
from umbel.link.ending import ending
from umbel.link.signing import uploaded
from umbel.wire.frames import read_data, write_head
from umbel.wire.methods import CONTROL, Method


@final
class PersonLink:
    """What a person, or a program on a person's behalf, says to the server.

    Args:
        channel: carries bytes; see `umbel.link.grpc_client.grpc_person`.
        token: proves who one is; None: nobody.
    """

    def __init__(self, channel: Channel, token: str | None) -> None:
        self._channel = channel
        self._metadata: dict[str, str | bytes] = {AUTHORIZATION: f"Bearer {token}"} if token else {}

    async def call(self, name: str, request: Message) -> Any:
        """Make a call that has one answer.

        Args:
            name: of the call, as in "ListRuns".
            request: its message; the answer is the message that the .proto says.
        """
        method = CONTROL[name]
        body = request_body(method, request)
        return answer_of(method, await self._channel.unary(method.path, body, self._metadata))

    async def stream(self, name: str, request: Message) -> AsyncIterator[Any]:
        """Make a call that has many answers, as "WatchRun"; leaving the loop ends it."""
        method = CONTROL[name]
        body = request_body(method, request)
        async with ending(self._channel.stream(method.path, body, self._metadata)) as messages:
            async for message in messages:
                yield answer_of(method, message)

    async def read_blob(self, request: wire.ReadRunBlobRequest) -> AsyncIterator[Data]:
        """A blob of a run, from an offset to its end, in pieces."""
        path, body = CONTROL["ReadRunBlob"].path, request.SerializeToString()
        async with ending(self._channel.stream(path, body, self._metadata)) as messages:
            async for message in messages:
                yield read_data(message)

    async def write_blob(self, head: wire.BlobHead, data: AsyncIterator[Data]) -> wire.WriteRunBlobResponse:
        """Write a blob from ``head.offset`` to its end; no piece is larger than a chunk."""
        method = CONTROL["WriteRunBlob"]
        async with ending(uploaded(write_head(head), data)) as messages:
            answer = await self._channel.upload(method.path, messages, self._metadata)
        return wire.parse(wire.WriteRunBlobResponse, answer)

    async def close(self) -> None:
        """End all calls, and the connection."""
        await self._channel.close()


def request_body(method: Method, request: Message) -> bytes:
    """The request as bytes.

    Raises:
        Rejected: it is too large to travel.
    """
    assert type(request) is method.request, f"{method.name} takes a {method.request.__name__}"
    body = request.SerializeToString()
    if len(body) > wire.MESSAGE:
        raise Rejected(
            f"{method.name}: the message has {len(body):,} bytes, at most {wire.MESSAGE:,} travel",
            advice="send less at once; arrays go as blobs",
        )
    return body


def answer_of(method: Method, data: bytes) -> Message:
    """The answer in these bytes.

    Raises:
        Rejected: they are none.
    """
    try:
        return wire.parse(method.response, data)
    except FormatError as error:
        raise Rejected(f"the server has sent what is not accepted here: {error.what}") from error


__all__ = ["PersonLink", "answer_of", "request_body"]

"""The node's end of every link: it signs, serializes once, parses and checks what comes back."""

from __future__ import annotations

import time
from abc import ABC
from collections.abc import AsyncIterator, Callable

from google.protobuf.message import Message

from umbel import wire
from umbel.errors import FormatError, Rejected, Unauthenticated
from umbel.link.base import Channel, Data
from umbel.link.dispatch import COUNTER, SESSION, SIGNATURE
from umbel.link.ending import ending
from umbel.link.identity import Identity
from umbel.link.pieces import ahead
from umbel.wire.frames import Piece, read_data, write_frame, write_head
from umbel.wire.methods import NODE, M

_REPORT = "report it: the server is no Umbel server, or something on the way changes what it sends"


class SignedLink(ABC):
    """A `Link` over a channel; `GrpcLink` and `MemoryLink` say which.

    Args:
        channel: carries bytes.
        identity: the node's key.
        name: the node's name.
        now: seconds since 1970, for the server to compare the node's clock with its own.
    """

    def __init__(
        self, channel: Channel, identity: Identity, name: str, *, now: Callable[[], float] = time.time
    ) -> None:
        self._channel = channel
        self._identity = identity
        self._name = name
        self._now = now
        self._session = b""
        self._counter = 0

    async def enrol(self, request: wire.EnrolRequest) -> wire.EnrolResponse:
        """See `Link.enrol`."""
        whole = wire.EnrolRequest()
        whole.CopyFrom(request)
        whole.name, whole.public_key = self._name, self._identity.public
        return await self._ask("Enrol", whole, wire.EnrolResponse, signed=False)

    async def open(self, request: wire.OpenSessionRequest) -> wire.OpenSessionResponse:
        """See `Link.open`."""
        asked = wire.ChallengeRequest(name=self._name)
        challenge = (await self._ask("Challenge", asked, wire.ChallengeResponse, signed=False)).challenge
        whole = wire.OpenSessionRequest()
        whole.CopyFrom(request)
        whole.name, whole.challenge = self._name, challenge
        whole.signature = self._identity.sign(wire.challenge_bytes(self._name, challenge))
        whole.versions[:] = wire.VERSIONS
        whole.slots = whole.slots or 1
        whole.time = whole.time or self._now()
        opened = await self._ask("OpenSession", whole, wire.OpenSessionResponse, signed=False)
        wire.agree([opened.version], who="the server", program=opened.program)
        self._session, self._counter = opened.session, 0
        return opened

    async def subscribe(self) -> AsyncIterator[wire.SubscribeResponse]:
        """See `Link.subscribe`."""
        method, body = NODE["Subscribe"], wire.SubscribeRequest().SerializeToString()
        async with ending(self._channel.stream(method.path, body, self._signed(method.path, body))) as messages:
            async for message in messages:
                yield _checked(wire.SubscribeResponse, message)

    async def report(self, request: wire.ReportRequest) -> wire.ReportResponse:
        """See `Link.report`."""
        return await self._ask("Report", request, wire.ReportResponse)

    async def read_blob(self, request: wire.ReadBlobRequest) -> AsyncIterator[Data]:
        """See `Link.read_blob`."""
        method, body = NODE["ReadBlob"], request.SerializeToString()
        async with ending(self._channel.stream(method.path, body, self._signed(method.path, body))) as messages:
            async for message in messages:
                yield read_data(message)

    async def stat_blob(self, request: wire.StatBlobRequest) -> wire.StatBlobResponse:
        """See `Link.stat_blob`."""
        return await self._ask("StatBlob", request, wire.StatBlobResponse)

    async def write_blob(self, head: wire.BlobHead, data: AsyncIterator[Piece]) -> wire.WriteBlobResponse:
        """See `Link.write_blob`."""
        method, first = NODE["WriteBlob"], write_head(head)
        metadata = self._signed(method.path, first)
        async with ending(uploaded(first, data)) as messages:
            answer = await self._channel.upload(method.path, messages, metadata)
        return _checked(wire.WriteBlobResponse, answer)

    async def close(self) -> None:
        """See `Link.close`."""
        await self._channel.close()

    async def _ask(self, name: str, request: Message, response: type[M], *, signed: bool = True) -> M:
        path, body = NODE[name].path, request.SerializeToString()  # once: the signature covers these bytes
        if len(body) > wire.MESSAGE:
            raise Rejected(
                f"{name}: the message has {len(body):,} bytes, at most {wire.MESSAGE:,} travel",
                advice="write what is large as a blob",
            )
        return _checked(response, await self._channel.unary(path, body, self._signed(path, body) if signed else {}))

    def _signed(self, path: str, body: bytes) -> dict[str, str | bytes]:
        if not self._session:
            raise Unauthenticated("no session is open", advice="call open() first")
        self._counter += 1
        signature = self._identity.sign(wire.signed_bytes(self._session, self._counter, path, body))
        return {SESSION: self._session, COUNTER: str(self._counter), SIGNATURE: signature}


def _checked(kind: type[M], data: bytes) -> M:
    try:
        message = wire.parse(kind, data)
        wire.check(message)
    except FormatError as error:
        raise Rejected(f"the server has sent what is not accepted here: {error.what}", advice=_REPORT) from error
    return message


async def uploaded(first: bytes, data: AsyncIterator[Piece]) -> AsyncIterator[bytes]:
    """The messages of an upload: the head, then the data."""
    yield first
    async with ending(ahead(data, write_frame)) as messages:
        async for message in messages:
            yield message


__all__ = ["SignedLink", "uploaded"]

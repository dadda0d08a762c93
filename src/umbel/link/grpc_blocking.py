"""A person's link for scripts and notebooks, which have an event loop of their own or none: each call waits.

It stands on gRPC's blocking half, so that it takes no loop, and Ctrl-C ends what it waits for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import grpc
from google.protobuf.message import Message

from umbel import wire
from umbel.errors import Unreachable
from umbel.link.address import Address
from umbel.link.base import Data
from umbel.link.dispatch import AUTHORIZATION
from umbel.link.grpc_client import DEADLINE, status_from
from umbel.link.grpc_options import CLIENT
from umbel.link.person import answer_of, request_body
from umbel.link.reasons import failed
from umbel.wire.frames import read_data, write_frame, write_head
from umbel.wire.methods import CONTROL


@final
class BlockingPersonLink:
    """What `umbel.link.person.PersonLink` does, for callers that wait. It may be used by several threads.

    Args:
        address: of the server.
        token: who one is; None: the secret of the address.
        authority: the certificate of the authority that has signed the server's (PEM); None: what the address says, and
            if that has none, those that the system knows.
        deadline: seconds that a call with one answer may take.
        tls: see `umbel.link.grpc_client.GrpcChannel`.
    """

    def __init__(
        self,
        address: Address,
        token: str | None = None,
        *,
        authority: bytes | None = None,
        deadline: float = DEADLINE,
        tls: bool = True,
    ) -> None:
        self._target, self._deadline = address.target, deadline
        where = f"dns:///{self._target}"
        token = token if token is not None else address.secret_text
        self._metadata = ((AUTHORIZATION, f"Bearer {token}"),) if token else ()
        self._channel = (
            grpc.secure_channel(where, grpc.ssl_channel_credentials(authority or address.pem), options=CLIENT)
            if tls
            else grpc.insecure_channel(where, options=CLIENT)
        )
        self._calls: Mapping[str, Any] = {
            method.name: getattr(
                self._channel,
                f"{'stream' if method.uploads else 'unary'}_{'stream' if method.streams else 'unary'}",
            )(method.path)
            for method in CONTROL.values()
        }

    def __enter__(self) -> BlockingPersonLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, name: str, request: Message) -> Any:
        """Make a call that has one answer; see `PersonLink.call`."""
        method = CONTROL[name]
        body = request_body(method, request)
        with self._mapped():
            answer = self._calls[name](body, metadata=self._metadata, timeout=self._deadline)
        return answer_of(method, answer)

    def stream(self, name: str, request: Message) -> Iterator[Any]:
        """Make a call that has many answers, as "WatchRun"; leaving the loop ends it."""
        method = CONTROL[name]
        for message in self._messages(name, request_body(method, request)):
            yield answer_of(method, message)

    def read_blob(self, request: wire.ReadRunBlobRequest) -> Iterator[Data]:
        """A blob of a run, from an offset to its end, in pieces."""
        yield from map(read_data, self._messages("ReadRunBlob", request.SerializeToString()))

    def write_blob(self, head: wire.BlobHead, data: Iterable[Data]) -> wire.WriteRunBlobResponse:
        """Write a blob from ``head.offset`` to its end; no piece is larger than a chunk."""
        raised: list[Exception] = []

        def messages() -> Iterator[bytes]:  # asked for in a thread of gRPC's
            try:
                yield write_head(head)
                yield from map(write_frame, data)
            except Exception as error:
                raised.append(error)
                raise

        try:
            with self._mapped():
                answer = self._calls["WriteRunBlob"](messages(), metadata=self._metadata)
        except Unreachable:
            if raised:  # the caller's own
                raise raised[0] from None
            raise
        return wire.parse(wire.WriteRunBlobResponse, answer)

    def close(self) -> None:
        """End all calls, and the connection."""
        self._channel.close()

    def _messages(self, name: str, body: bytes) -> Iterator[bytes]:
        with self._mapped():
            call = self._calls[name](body, metadata=self._metadata)
            try:
                yield from call
            finally:
                call.cancel()

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise failed(status_from(error), self._target) from error
        except ValueError as error:
            if "closed channel" not in str(error):
                raise
            raise Unreachable(f"the link to {self._target} is closed", advice="make another") from error


__all__ = ["BlockingPersonLink"]

"""The two sides of a link, and what lies between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from umbel import wire
from umbel.wire.frames import Piece

Data = bytes | memoryview
"""A piece of a blob. Its bytes stay as they are: who gets one may ask for the next before using it."""


class Link(Protocol):
    """The node's side: what a node says to the server. Whatever goes wrong is an `umbel.errors.UmbelError`.

    A call that ended with `Unreachable` may have arrived; it is made again, unchanged. `Unauthenticated` where a
    session is open means that the server has forgotten it: `open` again.
    """

    async def enrol(self, request: wire.EnrolRequest) -> wire.EnrolResponse:
        """Become a node of the federation; the link fills in the name and the public key."""

    async def open(self, request: wire.OpenSessionRequest) -> wire.OpenSessionResponse:
        """Open a session; the link fills in the name, the versions, and the signed challenge."""

    def subscribe(self) -> AsyncIterator[wire.SubscribeResponse]:
        """What the server has to say, as long as the session lives. Leaving the loop ends the call."""

    async def report(self, request: wire.ReportRequest) -> wire.ReportResponse:
        """Answer a task; when it returns, the answer is durable."""

    def read_blob(self, request: wire.ReadBlobRequest) -> AsyncIterator[Data]:
        """A blob, from an offset to its end, in pieces."""

    async def stat_blob(self, request: wire.StatBlobRequest) -> wire.StatBlobResponse:
        """How much of a blob the server has."""

    async def write_blob(self, head: wire.BlobHead, data: AsyncIterator[Piece]) -> wire.WriteBlobResponse:
        """Write a blob from ``head.offset`` to its end; no piece is larger than a chunk."""

    async def close(self) -> None:
        """End all calls, and the connection."""


class NodeCalls(Protocol):
    """The server's side of what nodes say. Requests were authenticated and checked; ``session`` names a live session.

    An `UmbelError` that is raised reaches the node; anything else is logged, and the node learns an incident's number.
    """

    async def enrol(self, request: wire.EnrolRequest) -> wire.EnrolResponse:
        """Make the owner of this key a node."""

    async def challenge(self, request: wire.ChallengeRequest) -> wire.ChallengeResponse:
        """Bytes to sign: ``Sessions.challenge``."""

    async def open_session(self, request: wire.OpenSessionRequest) -> wire.OpenSessionResponse:
        """Look at the signature and open the session: ``Sessions.open``."""

    def subscribe(self, session: bytes, request: wire.SubscribeRequest) -> AsyncIterator[wire.SubscribeResponse]:
        """Tasks and notices; is closed where the node has gone. One notice is asked for when the last has left."""

    async def report(self, session: bytes, request: wire.ReportRequest) -> wire.ReportResponse:
        """Keep an answer."""

    def read_blob(self, session: bytes, request: wire.ReadBlobRequest) -> AsyncIterator[Data]:
        """A blob in pieces of at most ``wire.CHUNK`` bytes."""

    async def stat_blob(self, session: bytes, request: wire.StatBlobRequest) -> wire.StatBlobResponse:
        """How much of a blob there is."""

    async def write_blob(
        self, session: bytes, head: wire.BlobHead, data: AsyncIterator[Data]
    ) -> wire.WriteBlobResponse:
        """Take in a blob. The pieces are never more than the head says; they may be fewer, or end with an error."""


class ControlCalls(Protocol):
    """The server's side of what people ask. ``person`` is what the server's ``authorize`` gave for token and method.

    Calls that are not there are answered "unimplemented". Errors are as in `NodeCalls`.
    """

    async def get_server(self, person: Any, request: wire.GetServerRequest) -> wire.GetServerResponse:
        """Who one is, and what the server is."""

    async def submit_run(self, person: Any, request: wire.SubmitRunRequest) -> wire.SubmitRunResponse:
        """Submit a run; with the same key again it is the same run."""

    async def list_runs(self, person: Any, request: wire.ListRunsRequest) -> wire.ListRunsResponse:
        """The runs that this person may see."""

    async def get_run(self, person: Any, request: wire.GetRunRequest) -> wire.GetRunResponse:
        """One run, with its result so far."""

    def watch_run(self, person: Any, request: wire.WatchRunRequest) -> AsyncIterator[wire.WatchRunResponse]:
        """What has happened, then what happens."""

    async def stop_run(self, person: Any, request: wire.StopRunRequest) -> wire.StopRunResponse:
        """Stop a run."""

    async def resume_run(self, person: Any, request: wire.ResumeRunRequest) -> wire.ResumeRunResponse:
        """Let a run go on."""

    async def remove_run(self, person: Any, request: wire.RemoveRunRequest) -> wire.RemoveRunResponse:
        """Remove a run and what it has left."""

    async def list_nodes(self, person: Any, request: wire.ListNodesRequest) -> wire.ListNodesResponse:
        """All nodes."""

    async def change_node(self, person: Any, request: wire.ChangeNodeRequest) -> wire.ChangeNodeResponse:
        """Rename, label or revoke a node."""

    async def create_ticket(self, person: Any, request: wire.CreateTicketRequest) -> wire.CreateTicketResponse:
        """A ticket for new nodes."""

    async def list_tickets(self, person: Any, request: wire.ListTicketsRequest) -> wire.ListTicketsResponse:
        """All tickets, without their secrets."""

    async def revoke_ticket(self, person: Any, request: wire.RevokeTicketRequest) -> wire.RevokeTicketResponse:
        """No node can join with this ticket any more."""

    async def create_token(self, person: Any, request: wire.CreateTokenRequest) -> wire.CreateTokenResponse:
        """A token for a person."""

    async def list_tokens(self, person: Any, request: wire.ListTokensRequest) -> wire.ListTokensResponse:
        """All tokens, without their secrets."""

    async def revoke_token(self, person: Any, request: wire.RevokeTokenRequest) -> wire.RevokeTokenResponse:
        """Nobody can use this token any more."""

    async def read_audit(self, person: Any, request: wire.ReadAuditRequest) -> wire.ReadAuditResponse:
        """Who did what."""

    def read_run_blob(self, person: Any, request: wire.ReadRunBlobRequest) -> AsyncIterator[Data]:
        """A blob of a run, in pieces."""

    async def stat_run_blob(self, person: Any, request: wire.StatRunBlobRequest) -> wire.StatRunBlobResponse:
        """How much of a blob there is."""

    async def write_run_blob(
        self, person: Any, head: wire.BlobHead, data: AsyncIterator[Data]
    ) -> wire.WriteRunBlobResponse:
        """Take in a blob of a run that is about to be submitted."""


class Channel(Protocol):
    """Carries bytes to the server and back; what went wrong arrives as an `UmbelError`."""

    async def unary(self, path: str, body: bytes, metadata: Mapping[str, str | bytes]) -> bytes:
        """One message there, one back."""

    def stream(self, path: str, body: bytes, metadata: Mapping[str, str | bytes]) -> AsyncIterator[bytes]:
        """One message there, many back."""

    async def upload(self, path: str, messages: AsyncIterator[bytes], metadata: Mapping[str, str | bytes]) -> bytes:
        """Many messages there, one back."""

    async def close(self) -> None:
        """End all calls."""


__all__ = ["Channel", "ControlCalls", "Data", "Link", "NodeCalls"]

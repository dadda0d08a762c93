"""What people ask of the server. Lives in the event loop's thread.

Whether the caller's role permits the method was looked at before (`umbel.server.people`); here it is looked at whose
run it is.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any, TypeVar, final

from google.protobuf.message import Message

from umbel import wire
from umbel.digest import is_named
from umbel.errors import FormatError, NotThere, Rejected, UsageError
from umbel.link.base import Data
from umbel.link.ending import ending
from umbel.server.apps import app_of, values_of
from umbel.server.calls import NodeDesk
from umbel.server.hub import Hub
from umbel.server.people import Person, check_own, hashed, new_ticket, new_token, owns
from umbel.server.results import pages_of
from umbel.server.run import SUBMISSION
from umbel.server.runs import Runs
from umbel.server.uploads import Uploads
from umbel.server.whole import whole
from umbel.store.sql import Kept, NodeRow, RunRow, ServerStore, TicketRow, TokenRow
from umbel.version import __version__
from umbel.wire.limits import FUTURE, TEXT

T = TypeVar("T")
M = TypeVar("M", bound=Message)
_RESULT = 3 << 20  # characters of a page
_PAGE = 1 << 20  # bytes of a page of a list
_LONGEST = 10 * 365 * 86400.0  # seconds that a ticket or token lasts


@final
class ControlDesk:
    """Serves people: a `umbel.link.base.ControlCalls`.

    Args:
        store: of the server.
        hub: the nodes.
        runs: the runs.
        uploads: blobs on their way.
        nodes: is told when nodes change.
        authority_expires: says when what nodes trust ends, seconds since 1970; 0: that is not known.

    Attributes:
        joined: makes the address that lets somebody in, of a secret.
    """

    def __init__(
        self,
        store: ServerStore,
        hub: Hub,
        runs: Runs,
        uploads: Uploads,
        *,
        nodes: NodeDesk,
        authority_expires: Callable[[], float] = float,
    ) -> None:
        self._store, self._hub, self._runs, self._uploads = store, hub, runs, uploads
        self._desk, self._expires = nodes, authority_expires
        self.joined: Callable[[str], str] = str

    async def get_server(self, person: Person, request: wire.GetServerRequest) -> wire.GetServerResponse:
        """Who one is, and what the server is."""
        return wire.GetServerResponse(
            version=wire.agree(
                request.versions, who=f"the program of {person.name}", program=request.program, me="the server"
            ),
            program=f"umbel {__version__}",
            time=time.time(),
            federation=self._store.federation,
            person=person.name,
            role=person.role,
            chunk=wire.CHUNK,
            inline=wire.INLINE,
            authority_expires=self._expires(),
        )

    # --- runs --------------------------------------------------------------------------------

    async def submit_run(self, person: Person, request: wire.SubmitRunRequest) -> wire.SubmitRunResponse:
        """Take a run in."""
        _check_submitted(request)
        submission = wire.from_json(request.submission, "submission", SUBMISSION)
        kept = [self._submitted(blob) for blob in request.blobs]
        app = request.app
        if app.HasField("wheel"):
            kept.append(self._submitted(app.wheel))
        row = RunRow(
            id=secrets.token_hex(16),
            key=request.key or secrets.token_hex(8),
            name=request.name or "run",
            owner=person.name,
            rounds=_rounds(submission),
            submitted=time.time(),
            submission=request.submission,
            nodes=tuple(request.nodes),
            labels={label.name: label.value for label in request.labels},
            dataset=request.dataset,
            app=values_of(app),
        )
        return wire.SubmitRunResponse(run=self._run(await self._runs.submit(row, kept)))

    def _submitted(self, blob: wire.Blob) -> Kept:
        digest = blob.digest.hex()
        if blob.HasField("content"):
            if not is_named(blob.digest, blob.content):
                raise Rejected(f"the bytes of blob {digest[:12]} do not have its digest")
            return self._store.blobs.keep_bytes(blob.content, digest)
        held = self._store.blobs.held(digest)
        if held is None:
            raise NotThere(f"blob {digest[:12]} was not written", advice="write it, then submit again")
        return held

    async def list_runs(self, person: Person, request: wire.ListRunsRequest) -> wire.ListRunsResponse:
        """All runs, the latest first."""
        del person
        runs = sorted(self._store.runs(submissions=False), key=lambda run: -run.submitted)
        some, pages = _page(map(self._run, runs), request.page)
        return wire.ListRunsResponse(runs=some, pages=pages)

    def _run(self, row: RunRow) -> wire.Run:
        return _run(row, self._hub.awaited(row.id) if row.status == "running" else self._runs.turn(row.id))

    async def get_run(self, person: Person, request: wire.GetRunRequest) -> wire.GetRunResponse:
        """A run with what came out so far."""
        run = self._runs.find(request.run)
        models = owns(person, run.owner)
        pages = await asyncio.to_thread(pages_of, self._store, run, models=models)
        page = pages[min(request.page, len(pages) - 1)]
        result = wire.to_json(page, "result", _RESULT)
        submission = run.submission if models and request.page == 0 else "null"
        return wire.GetRunResponse(run=self._run(run), submission=submission, result=result, pages=len(pages))

    async def watch_run(self, person: Person, request: wire.WatchRunRequest) -> AsyncIterator[wire.WatchRunResponse]:
        """What happens in a run."""
        run = self._runs.find(request.run)
        watched = self._runs.news.watch(run.id, request.since, now=request.now, who=person.name, until=person.expires)
        async for event in watched:
            yield wire.WatchRunResponse(
                event=event.number,
                time=event.time,
                kind=event.kind,
                content=wire.to_json(event.content, "content", _RESULT),
            )

    @whole
    async def stop_run(self, person: Person, request: wire.StopRunRequest) -> wire.StopRunResponse:
        """End a run where it stands."""
        run = self._own(person, request.run)
        self._runs.check_stops(run)  # else it would stand in the audit trail that it was stopped
        await self._audit(person, "run-stopped", run.id)
        return wire.StopRunResponse(run=_run(await self._runs.stop(run, person.name)))

    async def resume_run(self, person: Person, request: wire.ResumeRunRequest) -> wire.ResumeRunResponse:
        """Go on with a run."""
        run = self._own(person, request.run)
        return wire.ResumeRunResponse(run=self._run(await self._runs.resume(run, request.rounds, person.name)))

    async def remove_run(self, person: Person, request: wire.RemoveRunRequest) -> wire.RemoveRunResponse:
        """Remove a run that has ended, and all that it has left."""
        run = self._own(person, request.run)
        if run.id in self._runs.active:
            raise Rejected(f"run {run.id[:8]} is {run.status}", advice=f"umbel stop {run.id[:8]} first")
        await _kept(self._store.remove_run(run.id, person.name))
        return wire.RemoveRunResponse()

    def _own(self, person: Person, name: str) -> RunRow:
        run = self._runs.find(name)
        check_own(person, run.owner, f"run {run.id[:8]}")
        return run

    async def _audit(self, person: Person, action: str, target: str, **details: str) -> None:
        await _kept(self._store.audit(person.name, action, target, details))

    # --- nodes -------------------------------------------------------------------------------

    async def list_nodes(self, person: Person, request: wire.ListNodesRequest) -> wire.ListNodesResponse:
        """All nodes."""
        del person
        some, pages = _page(map(self._node, self._store.nodes()), request.page)
        return wire.ListNodesResponse(nodes=some, pages=pages)

    def _node(self, row: NodeRow) -> wire.Node:
        here = self._hub.nodes.get(row.name)
        connected = here is not None and here.connected
        node = wire.Node(
            name=row.name,
            labels=[wire.Label(name=name, value=value) for name, value in sorted(row.labels.items())],
            status="revoked" if row.revoked else "connected" if connected else "away",
            enrolled=row.enrolled,
            seen=time.time() if connected else row.seen,
            program=row.program,
            fingerprint=hashed(row.public_key).hex(),
        )
        if here is not None:
            node.apps.extend(here.offer.apps)
            node.datasets.extend(here.offer.datasets)
            node.clock, node.tasks = here.clock, len(here.working)
            node.takes_code = here.offer.takes_code
        return node

    @whole
    async def change_node(self, person: Person, request: wire.ChangeNodeRequest) -> wire.ChangeNodeResponse:
        """Rename, label or revoke a node."""
        changes: dict[str, Any]
        match request.WhichOneof("change"):
            case "rename":
                wire.check_name(request.rename, "the new name")
                changes = {"rename": request.rename}
            case "labels":
                changes = {"labels": {label.name: label.value for label in request.labels.labels}}
            case "revoked":
                changes = {"revoked": request.revoked}
            case _:
                raise UsageError(f"nothing is to change in node {request.node!r}")
        row: NodeRow = await _kept(self._store.change_node(request.node, **changes, by=person.name))
        if row.name != request.node:
            self._runs.renamed(request.node, row.name)
        self._desk.changed()
        if "labels" not in changes:
            done = "revoked it" if row.revoked else "let it in again"
            done = f"called it {row.name!r}" if "rename" in changes else done
            self._desk.end(request.node, f"{person.name} has {done}")
        return wire.ChangeNodeResponse(node=self._node(row))

    # --- tickets and tokens ------------------------------------------------------------------

    async def create_ticket(self, person: Person, request: wire.CreateTicketRequest) -> wire.CreateTicketResponse:
        """A ticket for new nodes."""
        secret, row = new_ticket(
            uses=request.uses or 1,
            seconds=min(request.seconds or 86400.0, _LONGEST),
            creator=person.name,
            now=time.time(),
        )
        await _kept(self._store.keep_ticket(row, person.name))
        return wire.CreateTicketResponse(ticket=_ticket(row), address=self.joined(secret))

    async def list_tickets(self, person: Person, request: wire.ListTicketsRequest) -> wire.ListTicketsResponse:
        """All tickets."""
        del person
        some, pages = _page(map(_ticket, self._store.tickets()), request.page)
        return wire.ListTicketsResponse(tickets=some, pages=pages)

    async def revoke_ticket(self, person: Person, request: wire.RevokeTicketRequest) -> wire.RevokeTicketResponse:
        """Take a ticket back."""
        await _kept(self._store.revoke("ticket", request.id, person.name))
        return wire.RevokeTicketResponse()

    async def create_token(self, person: Person, request: wire.CreateTokenRequest) -> wire.CreateTokenResponse:
        """A token for a person."""
        secret, row = new_token(request.name, request.role, seconds=min(request.seconds, _LONGEST), now=time.time())
        await _kept(self._store.keep_token(row, person.name))
        return wire.CreateTokenResponse(token=_token(row), address=self.joined(secret))

    async def list_tokens(self, person: Person, request: wire.ListTokensRequest) -> wire.ListTokensResponse:
        """All tokens."""
        del person
        some, pages = _page(map(_token, self._store.tokens()), request.page)
        return wire.ListTokensResponse(tokens=some, pages=pages)

    @whole
    async def revoke_token(self, person: Person, request: wire.RevokeTokenRequest) -> wire.RevokeTokenResponse:
        """Take a token back."""
        await _kept(self._store.revoke("token", request.name, person.name))
        self._runs.news.leave(request.name)
        return wire.RevokeTokenResponse()

    async def read_audit(self, person: Person, request: wire.ReadAuditRequest) -> wire.ReadAuditResponse:
        """Who did what."""
        del person
        entries = [
            wire.AuditEntry(**{**asdict(row), "details": json.dumps(row.details)})
            for row in self._store.audited(request.since)
        ]
        return wire.ReadAuditResponse(entries=entries)

    # --- blobs -------------------------------------------------------------------------------

    async def read_run_blob(self, person: Person, request: wire.ReadRunBlobRequest) -> AsyncIterator[Data]:
        """A blob of a run."""
        run = self._own(person, request.run)
        digest = request.digest.hex()
        if not await asyncio.to_thread(self._store.names, run.id, digest):
            raise NotThere(f"run {run.id[:8]} has no blob {digest[:12]}", advice="ask for its result again")
        if person.name != run.owner:  # from wherever on: nobody reads all but the first byte in secret
            await self._audit(person, "model-read", run.id, owner=run.owner, digest=digest)
        async with ending(self._uploads.read(digest, request.offset, _sender(person))) as pieces:
            async for piece in pieces:
                yield piece

    async def stat_run_blob(self, person: Person, request: wire.StatRunBlobRequest) -> wire.StatRunBlobResponse:
        """How much of a blob is here."""
        received, complete = self._uploads.stat(request.digest.hex(), _sender(person))
        return wire.StatRunBlobResponse(received=received, complete=complete)

    async def write_run_blob(
        self, person: Person, head: wire.BlobHead, data: AsyncIterator[Data]
    ) -> wire.WriteRunBlobResponse:
        """Take in a blob of a run that is about to be submitted."""
        received, complete = await self._uploads.write(head, data, _sender(person))
        return wire.WriteRunBlobResponse(received=received, complete=complete)


def _page(items: Iterable[M], page: int) -> tuple[list[M], int]:
    """Some of the items, and how many pages there are; what a node says of itself may be long."""
    pages: list[list[M]] = [[]]
    size = 0
    for item in items:
        size += item.ByteSize()
        if size > _PAGE and pages[-1]:
            pages.append([])
            size = item.ByteSize()
        pages[-1].append(item)
    return pages[page] if page < len(pages) else [], len(pages)


def _sender(person: Person) -> str:
    """Whose uploads go on where they broke off, and who reads."""
    return f"person {person.name}"


def _check_submitted(request: wire.SubmitRunRequest) -> None:
    """Refuse words that no node accepts in a task, and that people could not read.

    Raises:
        FormatError: names the field.
    """
    words = {"name": request.name, "key": request.key, "dataset": request.dataset}
    for label in request.labels:
        words |= {"labels.name": label.name, f"labels[{label.name[:40]!r}]": label.value}
    for field, text in words.items():
        if len(text) > TEXT or not text.isprintable():
            raise FormatError(
                f"{field} is {text[:80]!r}", advice=f"take at most {TEXT} characters, and none that cannot be printed"
            )
    for node in request.nodes:
        wire.check_name(node, "nodes")
    wire.check_app(request.app)


def _rounds(submission: Mapping[str, Any]) -> int | None:
    """How many rounds the run is to have, as far as what was submitted says that."""
    fields = submission.get("fields")
    rounds = fields.get("rounds") if isinstance(fields, dict) else None
    if not isinstance(rounds, int):
        return None
    if not 0 <= rounds < FUTURE:
        raise FormatError(f"rounds is {str(rounds)[:40]}", advice=f"give a number below {FUTURE:,}")
    return rounds


async def _kept(future: Future[T]) -> T:
    return await asyncio.wrap_future(future)


def _run(row: RunRow, reason: str = "") -> wire.Run:
    return wire.Run(
        id=row.id,
        name=row.name,
        owner=row.owner,
        status=row.status,
        reason=row.reason or reason,
        round=row.round,
        rounds=row.rounds or 0,
        submitted=row.submitted,
        started=row.started,
        ended=row.ended,
        app=app_of(row.app),
        dataset=row.dataset,
    )


def _ticket(row: TicketRow) -> wire.Ticket:
    return wire.Ticket(
        id=row.id, uses=row.uses, used=row.used, expires=row.expires, creator=row.creator, revoked=row.revoked
    )


def _token(row: TokenRow) -> wire.Token:
    return wire.Token(name=row.name, role=row.role, created=row.created, expires=row.expires, revoked=row.revoked)


__all__ = ["ControlDesk"]

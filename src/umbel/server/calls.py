"""What nodes ask of the server. Lives in the event loop's thread; what takes long goes to others."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from typing import final

from umbel import wire
from umbel.arrays import Arrays
from umbel.client.failures import readable
from umbel.digest import is_named
from umbel.engine.question import Question
from umbel.errors import BadUpdate, CorruptFile, Failure, FormatError, NotAllowed, NotThere, Rejected, Unauthenticated
from umbel.link.base import Data
from umbel.link.ending import ending
from umbel.link.sessions import Sessions
from umbel.link.tasks import result_of
from umbel.server.answers import Answer, Done, row_of
from umbel.server.counts import Counts
from umbel.server.hub import Hub
from umbel.server.people import hashed
from umbel.server.runs import Runs
from umbel.server.unnamed import Unnamed
from umbel.server.uploads import Uploads
from umbel.server.wanted import Offer
from umbel.server.whole import whole
from umbel.store.sql import Kept, NodeRow, ServerStore
from umbel.update import Update
from umbel.version import __version__

logger = logging.getLogger("umbel")
_QUICK = 1 << 18  # bytes of an answer that is checked on the spot; a millisecond or so
_OFFER = 64 << 10  # bytes that a node may say of itself: they are kept, and shown to people
_VERDICTS = {
    "accepted": wire.ReportResponse.VERDICT_ACCEPTED,
    "repeated": wire.ReportResponse.VERDICT_REPEATED,
    "late": wire.ReportResponse.VERDICT_LATE,
}


@final
class NodeDesk:
    """Serves nodes: a `umbel.link.base.NodeCalls`.

    Args:
        store: of the server.
        sessions: who has which.
        hub: who is connected.
        runs: what is asked.
        uploads: blobs on their way.
        counts: what is counted.
        allowed: names of nodes that may open a session; None: all that are enrolled.

    Attributes:
        ending: the server ends, and not its nodes.
    """

    def __init__(
        self,
        store: ServerStore,
        sessions: Sessions,
        hub: Hub,
        runs: Runs,
        uploads: Uploads,
        *,
        counts: Counts,
        allowed: Collection[str] | None = None,
    ) -> None:
        self._store, self._sessions, self._hub, self._runs, self._uploads = store, sessions, hub, runs, uploads
        self._allowed, self._counts = allowed, counts
        self.ending = False
        self._unnamed = Unnamed()
        self._offers: dict[str, tuple[Offer, float]] = {}
        self._nodes = {node.name: node for node in store.nodes()}

    def changed(self) -> None:
        """Nodes were enrolled, renamed, labelled or revoked."""
        self._nodes = {node.name: node for node in self._store.nodes()}
        for name, (offer, clock) in self._offers.items():
            labelled = offer.labelled(self._nodes[name].labels) if name in self._nodes else offer
            if labelled != offer:  # it works on, and is drawn by its new labels from the next round on
                self._offers[name] = labelled, clock
                self._hub.relabel(labelled)

    # --- who is who --------------------------------------------------------------------------

    @whole
    async def enrol(self, request: wire.EnrolRequest) -> wire.EnrolResponse:
        """Become a node of this federation."""
        if request.check:
            await asyncio.to_thread(self._store.check_ticket, hashed(request.ticket))
            return wire.EnrolResponse(federation=self._store.federation, time=time.time())
        _check_readable(request)
        labels = {label.name: label.value for label in request.labels}
        row = NodeRow(
            name=request.name,
            public_key=request.public_key,
            labels=labels,
            enrolled=time.time(),
            seen=0.0,
            revoked=False,
            program="",
        )
        kept = await asyncio.wrap_future(self._store.enrol(hashed(request.ticket), row))
        self._nodes[kept.name] = kept
        logger.info("node-enrolled: %s", request.name)
        return wire.EnrolResponse(federation=self._store.federation, time=time.time())

    async def challenge(self, request: wire.ChallengeRequest) -> wire.ChallengeResponse:
        """Bytes to sign."""
        return wire.ChallengeResponse(challenge=self._sessions.challenge(request.name, time.time()))

    async def open_session(self, request: wire.OpenSessionRequest) -> wire.OpenSessionResponse:
        """Open a session for who holds the key."""
        node = self._node(request.name)
        if request.ByteSize() > _OFFER:
            raise Rejected(
                f"what node {request.name!r} says of itself has {request.ByteSize():,} bytes, at most {_OFFER:,} are "
                "accepted",
                advice="offer fewer apps and labels",
            )
        _check_readable(request)
        version = wire.agree(request.versions, who=f"node {request.name}", program=request.program, me="the server")
        now = time.time()
        session = self._sessions.open(request.name, request.challenge, request.signature, node.public_key, now)
        offer = Offer(
            name=node.name,
            own={label.name: label.value for label in request.labels},
            apps=tuple(request.apps),
            datasets=tuple(request.datasets),
            slots=max(1, request.slots),
            program=request.program,
            takes_code=request.takes_code,
        )
        self._offers[node.name] = offer.labelled(node.labels), request.time - now if request.time else 0.0
        return wire.OpenSessionResponse(
            session=session,
            version=version,
            program=f"umbel {__version__}",
            keepalive=wire.KEEPALIVE,
            chunk=wire.CHUNK,
            inline=wire.INLINE,
            time=now,
            federation=self._store.federation,
        )

    def _node(self, name: str) -> NodeRow:
        node = self._nodes.get(name)
        if node is None:
            raise NotAllowed(
                f"no node {name!r} is enrolled here",
                advice="start it with the --name that it has there now, and the --dir that it has; "
                "or join again, with a new ticket: umbel ticket create",
            )
        if node.revoked:
            raise NotAllowed(f"node {name!r} was revoked", advice="ask the operator of the server")
        if self._allowed is not None and name not in self._allowed:
            raise NotAllowed(f"node {name!r} is not on this server's list", advice="ask the operator to add it")
        return node

    async def subscribe(self, session: bytes, request: wire.SubscribeRequest) -> AsyncIterator[wire.SubscribeResponse]:
        """Tasks, as they come."""
        del request
        name = self._name(session)
        offer, clock = self._offers[name]
        before = self._hub.nodes.get(name)
        if before is not None and before.connected:
            logger.warning("node-twice: %s connects, and its connection before is still open", name)
        node, outbox = self._hub.connect(offer, clock)
        self._note(name, offer, connected=True)
        try:
            while (notice := await outbox.get()) is not None:
                yield notice
        finally:
            if self._hub.disconnect(node, outbox):
                self._note(name, offer, connected=False)

    def _note(self, name: str, offer: Offer, *, connected: bool) -> None:
        if self.ending:  # the next server is to wait for who is connected now
            return
        logger.info("node-%s: %s", "connected" if connected else "away", name)
        self._store.change_node(name, seen=time.time(), program=offer.program, connected=connected)

    # --- answers -----------------------------------------------------------------------------

    async def report(self, session: bytes, request: wire.ReportRequest) -> wire.ReportResponse:
        """Take an answer; when this returns, it is durable."""
        self._check_own(session, request.id.client)
        question = await self._runs.asked(request.id.run, request.id.exchange)
        if question is None:
            return wire.ReportResponse(verdict=wire.ReportResponse.VERDICT_LATE)
        return await self._accept(request, question)

    @whole
    async def _accept(self, request: wire.ReportRequest, question: Question) -> wire.ReportResponse:
        """Keep an answer, and tell its run."""
        kept: list[Kept] = []
        if sum(blob.size for blob in _blobs(request)) > _QUICK:
            answer = await asyncio.to_thread(self._checked, request, question, kept)
        else:
            answer = self._checked(request, question, kept)
        row = row_of(answer, time.time())
        verdict = await asyncio.wrap_future(self._store.accept(request.id.run, request.id.exchange, row, kept))
        self._counts.answers[verdict] += 1
        if verdict == "accepted":
            self._unnamed.named(request.id.client, row.blobs)
            if request.output:
                self._runs.printed(request.id.run, answer.client, question.round, readable(request.output))
            self._runs.arrived(request.id.run, request.id.exchange, answer)
        if isinstance(answer.done, Failure) and request.WhichOneof("outcome") != "failure":
            raise Rejected(answer.done.message)
        return wire.ReportResponse(verdict=_VERDICTS[verdict])

    def _name(self, session: bytes) -> str:
        """Whose session it is."""
        name = self._sessions.node(session)
        if name is None:
            raise Unauthenticated("the session has ended: another one of this node was opened", advice="open a session")
        return name

    def end(self, name: str, reason: str) -> None:
        """A node must open another session, if it may."""
        self._sessions.end(name)
        self._offers.pop(name, None)
        self._hub.forget(name, reason)

    def _check_own(self, session: bytes, client: str) -> None:
        name = self._name(session)
        if client != name:
            raise NotAllowed(f"node {name!r} cannot answer for client {client!r}", advice="answer as oneself")

    def _checked(self, request: wire.ReportRequest, question: Question, kept: list[Kept]) -> Answer:
        """The answer, or the failure that it is because it does not fit."""
        client, attempt = request.id.client, request.id.attempt
        done: Done
        try:
            wire.check_report(request)
            done = result_of(request, question, lambda blob: self._arrays(blob, kept))
            if isinstance(done, Update):
                question.check(done)
        except (BadUpdate, FormatError) as error:
            kept.clear()
            done = Failure(
                client=client, round=question.round, kind=question.label, code=BadUpdate.code, message=str(error)
            )
        if isinstance(done, Failure):
            done = replace(done, message=readable(done.message), traceback=readable(done.traceback))
        retryable = request.failure.retryable if request.WhichOneof("outcome") == "failure" else False
        return Answer(client, attempt, done, state=request.state and not isinstance(done, Failure), retryable=retryable)

    def _arrays(self, blob: wire.Blob, kept: list[Kept]) -> Arrays:
        """The arrays of a blob that came along, or was written before."""
        digest = blob.digest.hex()
        if not blob.HasField("content"):
            held = self._store.blobs.held(digest)
            if held is None:
                raise NotThere(f"blob {digest[:12]} was not written", advice="write it, then report again")
            kept.append(held)
            try:
                return self._store.blobs.fetch(digest)
            except CorruptFile as error:
                raise FormatError(f"the bytes of blob {digest[:12]} are no arrays") from error
        if len(blob.content) != blob.size or not is_named(blob.digest, blob.content):
            raise FormatError(f"the bytes of blob {digest[:12]} do not have its digest")
        kept.append(Kept(digest, blob.size, blob.content))
        return Arrays.from_bytes(blob.content).with_digest(digest)

    # --- blobs -------------------------------------------------------------------------------

    async def read_blob(self, session: bytes, request: wire.ReadBlobRequest) -> AsyncIterator[Data]:
        """A blob that a task of this node names, from an offset on."""
        digest = request.digest.hex()
        name = self._name(session)
        if not await self._runs.gone_on(lambda: self._hub.names(name, digest)):
            raise NotThere(f"no task of this node names blob {digest[:12]}", advice="its round may have gone on")
        async with ending(self._uploads.read(digest, request.offset, _sender(name))) as pieces:
            async for piece in pieces:
                yield piece

    async def stat_blob(self, session: bytes, request: wire.StatBlobRequest) -> wire.StatBlobResponse:
        """How much of a blob is here."""
        await self._check_works(session)
        received, complete = self._uploads.stat(request.digest.hex(), _sender(self._name(session)))
        return wire.StatBlobResponse(received=received, complete=complete)

    async def write_blob(
        self, session: bytes, head: wire.BlobHead, data: AsyncIterator[Data]
    ) -> wire.WriteBlobResponse:
        """Take a blob's bytes, straight into a file."""
        await self._check_works(session)
        await self._make_room(self._name(session), head)
        received, complete = await self._uploads.write(head, data, _sender(self._name(session)))
        return wire.WriteBlobResponse(received=received, complete=complete)

    async def _make_room(self, name: str, head: wire.BlobHead) -> None:
        """Let go of what else a node has sent, if this makes too much; it is no larger than what is expected of it."""
        digest, room = head.digest.hex(), self._runs.room(name)
        if head.size > room:
            raise Rejected(
                f"blob {digest[:12]} has {head.size:,} bytes, and {room:,} may be in what node {name!r} is asked for",
                advice="send what the task asks for; what is expected stands in its details",
            )
        for needless in self._unnamed.add(name, digest, head.size, room):
            await asyncio.to_thread(self._store.blobs.let_go, needless, _sender(name))

    async def _check_works(self, session: bytes) -> None:
        """Only who has a task has something to send."""
        name = self._name(session)
        if not await self._runs.gone_on(lambda: self._hub.works(name)):
            raise NotAllowed(f"node {name!r} has no task to send something for", advice="its round may have gone on")


def _check_readable(request: wire.EnrolRequest | wire.OpenSessionRequest) -> None:
    """Refuse words that could do something to the terminal of who reads them.

    Raises:
        Rejected: says which.
    """
    words = [word for label in request.labels for word in (label.name, label.value)]
    if isinstance(request, wire.OpenSessionRequest):
        words += [request.program, *request.datasets]
        words += [word for app in request.apps for word in (app.name, app.version, app.object, *app.handlers)]
    strange = next((word for word in words if not word.isprintable()), None)
    if strange is not None:
        raise Rejected(
            f"node {request.name!r} says {strange[:80]!r} of itself", advice="leave out what cannot be printed"
        )


def _blobs(request: wire.ReportRequest) -> list[wire.Blob]:
    update = request.update
    return [update.arrays, *(named.blob for named in update.extra)]


def _sender(node: str) -> str:
    """Whose uploads go on where they broke off, and who reads."""
    return f"node {node}"


__all__ = ["NodeDesk"]

"""Who is connected, what each node works on, and who gets what next. Lives in the event loop's thread.

A task goes to its node when that has a free slot. Which run's comes first if there are several: that of which this
node was given a task longest ago. A task that was handed out stays the node's until it is answered, revoked, or the
node has been away for longer than `PATIENCE`; who comes back sooner gets it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

from umbel.engine.exchange import Event, Lost
from umbel.errors import Failure
from umbel.sample import Population
from umbel.server.selection import Offer, Selection, waiting_for
from umbel.wire import Goodbye, Revoke, SubscribeResponse, Task, TaskId

PATIENCE = 30.0  # seconds without a sign of life after which a node counts as gone: three of HTTP/2's pings
_SAID_EVERY = 5.0  # seconds between two words about whom a run waits for
RETURN = 5.0  # seconds that a new server waits for nodes that were connected to the one before; they retry each second


@final
@dataclass(slots=True)
class OpenExchange:
    """The exchange that a run has open.

    Attributes:
        run, sequence: which.
        label: what is asked, in words, and in which round.
        task: makes the task of a client, with that attempt.
        post: tells the run what happened.
        blobs: digests of those that its tasks name.
        waiting: clients whose task is not handed out: the attempt.
        handed: those whose task is: the attempt.
    """

    run: str
    sequence: int
    label: tuple[int, str]
    task: Callable[[str, int], Task]
    post: Callable[[Event], None]
    blobs: frozenset[str]
    waiting: dict[str, int] = field(default_factory=dict)
    handed: dict[str, int] = field(default_factory=dict)

    def awaits(self, client: str) -> bool:
        """Is an answer of this client still to come?"""
        return client in self.waiting or client in self.handed


@final
@dataclass(slots=True, eq=False)
class Peer:
    """A node, connected or not.

    Attributes:
        offer: what it said last.
        outbox: what it is to be told; None: it is not connected.
        connections: how often it has connected.
        working: runs whose task it has.
        served: when each run's task was last given to it, by a counter.
        clock: seconds that its clock is ahead.
    """

    offer: Offer
    outbox: asyncio.Queue[SubscribeResponse | None] | None = None
    connections: int = 0
    working: set[str] = field(default_factory=set)
    served: dict[str, int] = field(default_factory=dict)
    clock: float = 0.0
    gone: asyncio.TimerHandle | None = None
    present: bool = False  # connected, or away for less than PATIENCE

    @property
    def connected(self) -> bool:
        """Is its stream open?"""
        return self.outbox is not None


@final
class Hub:
    """The nodes and the open exchanges.

    Args:
        expected: names of the nodes that were connected to the server before; the first cohort waits for them a moment.
        patience: see `PATIENCE`.
    """

    def __init__(self, expected: Iterable[str] = (), *, patience: float = PATIENCE, wait: float = RETURN) -> None:
        self.peers: dict[str, Peer] = {}
        self.exchanges: dict[str, OpenExchange] = {}
        self._patience = patience
        self._expected = set(expected)
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + wait  # how long they are waited for
        self._watchers: set[asyncio.Future[None]] = set()
        self._count = 0

    # --- nodes -------------------------------------------------------------------------------

    def connect(self, offer: Offer, clock: float = 0.0) -> tuple[Peer, asyncio.Queue[SubscribeResponse | None]]:
        """A node has subscribed; what it had before comes again."""
        peer = self.peers.setdefault(offer.name, Peer(offer))
        if peer.outbox is not None:
            peer.outbox.put_nowait(None)  # its stream before ends
        if peer.gone is not None:
            peer.gone.cancel()
            peer.gone = None
        outbox: asyncio.Queue[SubscribeResponse | None] = asyncio.Queue()
        peer.offer, peer.outbox, peer.clock, peer.present = offer, outbox, clock, True
        peer.connections += 1
        peer.working = {run for run, exchange in self.exchanges.items() if offer.name in exchange.handed}
        for run in peer.working:
            exchange = self.exchanges[run]
            self._tell(peer, SubscribeResponse(task=exchange.task(offer.name, exchange.handed[offer.name])))
        self._expected.discard(offer.name)
        self.dispatch(peer)
        self._changed()
        return peer, outbox

    def disconnect(self, peer: Peer, outbox: asyncio.Queue[SubscribeResponse | None]) -> bool:
        """A stream has ended; gives False if the node has another one by now."""
        if peer.outbox is not outbox:
            return False
        peer.outbox = None
        peer.gone = self._loop.call_later(self._patience, self._give_up, peer)
        self._changed()
        return True

    def _give_up(self, peer: Peer) -> None:
        peer.gone, peer.present = None, False
        for exchange in list(self.exchanges.values()):
            self._lose(exchange, peer.offer.name)
        self._changed()

    def _lose(self, exchange: OpenExchange, client: str) -> None:
        """A client that was asked is gone."""
        attempt = exchange.waiting.pop(client, 0) or exchange.handed.pop(client, 0)
        if not attempt:
            return
        round, kind = exchange.label
        failure = Failure(
            client=client,
            round=round,
            kind=kind,
            code="away",
            message=f"node {client!r} has been away for more than {self._patience:g} seconds\n  What to do: look at "
            "its log: is it running, and can it reach this server?",
        )
        exchange.post(Lost(client, attempt, failure))

    def forget(self, name: str, reason: str) -> None:
        """A node was revoked, or is called otherwise now: its stream ends, and what it had is lost."""
        self._expected.discard(name)
        peer = self.peers.pop(name, None)
        if peer is None:
            return
        if peer.gone is not None:
            peer.gone.cancel()
        self._tell(peer, SubscribeResponse(goodbye=Goodbye(reason=reason)))
        if peer.outbox is not None:
            peer.outbox.put_nowait(None)
        for exchange in list(self.exchanges.values()):
            self._lose(exchange, name)
        self._changed()

    def goodbye(self, reason: str, wait: float) -> None:
        """Tell all nodes that the server ends."""
        for peer in self.peers.values():
            self._tell(peer, SubscribeResponse(goodbye=Goodbye(reason=reason, wait=wait)))
            if peer.outbox is not None:
                peer.outbox.put_nowait(None)

    def _tell(self, peer: Peer, notice: SubscribeResponse) -> None:
        if peer.outbox is not None:
            peer.outbox.put_nowait(notice)

    def _changed(self) -> None:
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_result(None)
        self._watchers.clear()

    # --- population --------------------------------------------------------------------------

    def population(self, selection: Selection) -> dict[str, Mapping[str, str]]:
        """Who can be asked, with labels."""
        return {
            name: peer.offer.labels
            for name, peer in self.peers.items()
            if peer.present and selection.wants(peer.offer) and not selection.refusal(peer.offer)
        }

    async def gather(
        self, selection: Selection, at_least: int, wait: float, say: Callable[[str, float], None]
    ) -> Population:
        """Wait until so many nodes are there, at most so many seconds; gives who is.

        Args:
            selection: which ones.
            at_least: how many.
            wait: seconds.
            say: is told for whom it waits, and how many seconds more.
        """
        at_least, until, said, again = max(at_least, 1), self._loop.time() + wait, "", 0.0
        await self._returned()
        while True:
            now = self._loop.time()
            enough = sum(peer.present for peer in self.peers.values()) >= at_least  # a quick look before a close one
            found = self.population(selection) if enough or now >= again or now >= until else {}
            if len(found) >= at_least or now >= until:
                return Population(tuple(found), {name: labels for name, labels in found.items() if labels})
            if now >= again:  # many may come at once
                words, again = self._waiting_for(selection, len(found), at_least), now + _SAID_EVERY
                if words != said:
                    said = words
                    say(words, until - now)
            await self.change(min(until, again) - now)

    def _waiting_for(self, selection: Selection, there: int, at_least: int) -> str:
        offers = [peer.offer for peer in self.peers.values() if peer.present]
        away = [name for name, peer in self.peers.items() if not peer.present]
        return waiting_for(selection, offers, away, there, at_least)

    async def _returned(self) -> None:
        """Nodes that were connected before this server started have come back, or had the time to."""
        while self._expected and (left := self._until - self._loop.time()) > 0:
            await self.change(left)
        self._expected.clear()

    async def change(self, timeout: float) -> None:
        """Wait until a node comes or goes, or an exchange opens; at most so many seconds."""
        watcher = self._loop.create_future()
        self._watchers.add(watcher)
        try:
            await asyncio.wait_for(watcher, timeout)
        except TimeoutError:
            pass
        finally:
            self._watchers.discard(watcher)

    # --- exchanges ---------------------------------------------------------------------------

    def open(self, exchange: OpenExchange) -> None:
        """A run opens an exchange."""
        self.close(exchange.run, "the run went on without it")
        self.exchanges[exchange.run] = exchange
        self._changed()

    def lease(self, run: str, tasks: Sequence[tuple[str, int]]) -> None:
        """Ask these clients, each with this attempt."""
        exchange = self.exchanges.get(run)
        if exchange is None:
            return
        for client, attempt in tasks:
            exchange.waiting[client] = attempt
            peer = self.peers.get(client)
            if peer is None or not peer.present:  # it has the time to come back that others have
                self._loop.call_later(self._patience, self._lose_unless_back, exchange, client, attempt)
            elif peer.connected:
                self.dispatch(peer)

    def _lose_unless_back(self, exchange: OpenExchange, client: str, attempt: int) -> None:
        peer = self.peers.get(client)
        current = self.exchanges.get(exchange.run) is exchange and exchange.waiting.get(client) == attempt
        if current and (peer is None or not peer.present):
            self._lose(exchange, client)

    def dispatch(self, peer: Peer) -> None:
        """Give a node what it has free slots for."""
        while peer.outbox is not None and len(peer.working) < peer.offer.slots:
            name = peer.offer.name
            runs = [run for run, exchange in self.exchanges.items() if name in exchange.waiting]
            if not runs:
                return
            exchange = self.exchanges[min(runs, key=lambda run: peer.served.get(run, 0))]
            attempt = exchange.handed[name] = exchange.waiting.pop(name)
            peer.working.add(exchange.run)
            self._count += 1
            peer.served[exchange.run] = self._count
            peer.outbox.put_nowait(SubscribeResponse(task=exchange.task(name, attempt)))

    def answered(self, run: str, client: str) -> int:
        """A client's answer is durable: its slot is free. Gives the attempt it counts for; 0: none."""
        exchange = self.exchanges.get(run)
        attempt = 0
        if exchange is not None:
            attempt = exchange.handed.pop(client, 0) or exchange.waiting.pop(client, 0)
        self._free(run, client)
        return attempt

    def names(self, client: str, digest: str) -> bool:
        """Does a task that this client works on name this blob?"""
        return any(client in e.handed and digest in e.blobs for e in self.exchanges.values())

    def works(self, client: str) -> bool:
        """Has this client a task?"""
        return any(client in e.handed for e in self.exchanges.values())

    def _free(self, run: str, client: str) -> None:
        peer = self.peers.get(client)
        if peer is not None:
            peer.working.discard(run)
            self.dispatch(peer)

    def revoke(self, run: str, clients: Iterable[str], reason: str) -> None:
        """Tell clients of a run's exchange to stop."""
        exchange = self.exchanges.get(run)
        if exchange is None:
            return
        for client in clients:
            exchange.waiting.pop(client, 0)
            attempt = exchange.handed.pop(client, 0)
            if not attempt:
                continue
            which = TaskId(run=run, exchange=exchange.sequence, client=client, attempt=attempt)
            if (peer := self.peers.get(client)) is not None:
                self._tell(peer, SubscribeResponse(revoke=Revoke(tasks=[which], reason=reason)))
            self._free(run, client)

    def close(self, run: str, reason: str) -> None:
        """A run's exchange is over: who still works on it stops."""
        exchange = self.exchanges.get(run)
        if exchange is not None:
            self.revoke(run, [*exchange.waiting, *exchange.handed], reason)
            del self.exchanges[run]

    def end(self, run: str, reason: str) -> None:
        """A run has ended."""
        self.close(run, reason)
        for peer in self.peers.values():
            peer.served.pop(run, None)


__all__ = ["PATIENCE", "RETURN", "Hub", "OpenExchange", "Peer"]

"""Who is connected, what each node works on, and who gets what next. Lives in the event loop's thread.

A task goes to its node when that has a free slot. Which run's comes first if there are several: that of which this
node was given a task longest ago. A task that was handed out stays the node's until it is answered, revoked, or the
node has been away for longer than `PATIENCE`; who comes back sooner gets it again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

from umbel.engine.exchange import Event, Failed, Lost
from umbel.errors import EmptyPopulation, Failure, StoreError
from umbel.sample import Population
from umbel.server.wanted import Offer, Wanted, waiting_for
from umbel.store.sql.values import NodeRow
from umbel.wire import Goodbye, Revoke, SubscribeResponse, Task, TaskId

_TURN = 10.0  # seconds that one of two programs with the same key is asked to leave to the other
_TWICE = "another program with this node's key has connected; if its directory was copied, stop one of the two"
PATIENCE = 30.0  # seconds after its stream ended for which a node is still waited for
_WAITED = (
    "start these nodes, or mend what is said of them, and then: umbel resume; how many a run needs, and how long it "
    "waits, is umbel.rounds(min_nodes=, wait=)"
)
_SAID_EVERY = 5.0  # seconds between two words about whom a run waits for
_NAMED = 10  # nodes that a run waits for
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
class Notices:
    """What a node is to be told, for one stream; None ends it.

    Attributes:
        again: runs whose task it may have had on an earlier stream.
    """

    def __init__(self) -> None:
        self._unsent: deque[SubscribeResponse | None] = deque()
        self._some = asyncio.Event()
        self.again: set[str] = set()

    def put(self, notice: SubscribeResponse | None) -> None:
        """Tell it this, behind what is not sent yet."""
        self._unsent.append(notice)
        self._some.set()

    async def get(self) -> SubscribeResponse | None:
        """The next to send; waits for it."""
        while self.empty():
            self._some.clear()
            await self._some.wait()
        return self._unsent.popleft()

    def empty(self) -> bool:
        """Is all sent?"""
        return not self._unsent

    def revoke(self, task: TaskId, reason: str) -> None:
        """Tell the node to stop. A task that has not left yet does not leave: who reads nothing costs no memory."""
        unsent = next((n for n in self._unsent if n is not None and n.HasField("task") and n.task.id == task), None)
        if unsent is not None:
            self._unsent.remove(unsent)
        if unsent is None or task.run in self.again:
            self.put(SubscribeResponse(revoke=Revoke(tasks=[task], reason=reason)))
        self.again.discard(task.run)


@final
@dataclass(slots=True, eq=False)
class HubNode:
    """A node, connected or not.

    Attributes:
        offer: what it said last.
        outbox: what it is to be told; None: it is not connected.
        working: runs whose task it has.
        served: when each run's task was last given to it, by a counter.
        clock: seconds that its clock is ahead.
    """

    offer: Offer
    outbox: Notices | None = None
    working: set[str] = field(default_factory=set)
    served: dict[str, int] = field(default_factory=dict)
    clock: float = 0.0
    gone: asyncio.TimerHandle | None = None
    present: bool = False  # connected, or away for less than PATIENCE

    @property
    def connected(self) -> bool:
        """Is its stream open?"""
        return self.outbox is not None


def _away(exchange: OpenExchange, client: str, what: str, advice: str) -> Failure:
    """What the run is told of a client that is gone."""
    round, kind = exchange.label
    message = f"{what}\n  What to do: {advice}"
    return Failure(client=client, round=round, kind=kind, code="away", message=message)


@final
class Hub:
    """The nodes and the open exchanges.

    Args:
        expected: names of the nodes that were connected to the server before; the first cohort waits for them a moment.
        enrolled: gives all nodes that have joined.
        patience: see `PATIENCE`.

    Attributes:
        nodes: by name.
        exchanges: by run.
        version: changes whenever `population` may give something else; may be read in any thread.
    """

    def __init__(
        self,
        expected: Iterable[str] = (),
        *,
        enrolled: Callable[[], Iterable[NodeRow]] = tuple,
        patience: float = PATIENCE,
        wait: float = RETURN,
    ) -> None:
        self.nodes: dict[str, HubNode] = {}
        self.exchanges: dict[str, OpenExchange] = {}
        self.version = 0
        self._patience, self._enrolled = patience, enrolled
        self._expected = set(expected)
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + wait  # how long they are waited for
        self._watchers: set[asyncio.Future[None]] = set()
        self._count = 0

    # --- nodes -------------------------------------------------------------------------------

    def connect(self, offer: Offer, clock: float = 0.0) -> tuple[HubNode, Notices]:
        """A node has subscribed; what it had before comes again."""
        node = self.nodes.setdefault(offer.name, HubNode(offer))
        if node.outbox is not None:  # its stream before ends; if that is only lost, nobody hears this
            self._tell(node, SubscribeResponse(goodbye=Goodbye(reason=_TWICE, wait=_TURN)))
            node.outbox.put(None)
        if node.gone is not None:
            node.gone.cancel()
            node.gone = None
        outbox = Notices()
        node.offer, node.outbox, node.clock, node.present = offer, outbox, clock, True
        node.working = {run for run, exchange in self.exchanges.items() if offer.name in exchange.handed}
        for run in node.working:
            outbox.again.add(run)
            exchange = self.exchanges[run]
            self._tell(node, SubscribeResponse(task=exchange.task(offer.name, exchange.handed[offer.name])))
        self._expected.discard(offer.name)
        self.dispatch(node)
        self._nodes_changed()
        return node, outbox

    def disconnect(self, node: HubNode, outbox: Notices) -> bool:
        """A stream has ended; gives False if the node has another one by now."""
        if node.outbox is not outbox:
            return False
        node.outbox = None
        node.gone = self._loop.call_later(self._patience, self._give_up, node)
        self._nodes_changed()
        return True

    def _give_up(self, node: HubNode) -> None:
        node.gone, node.present = None, False
        for exchange in list(self.exchanges.values()):
            self._lose(exchange, node.offer.name)
        self._nodes_changed()

    def _lose(self, exchange: OpenExchange, client: str) -> None:
        """A client that was asked is gone; it may come back."""
        if attempt := exchange.waiting.pop(client, 0) or exchange.handed.pop(client, 0):
            what = f"node {client!r} has been away for more than {self._patience:g} seconds"
            advice = "look at its log: is it running, and can it reach this server?"
            exchange.post(Lost(client, attempt, _away(exchange, client, what, advice)))
            self._free(exchange.run, client)

    def forget(self, name: str, reason: str) -> None:
        """A node was revoked, or is called otherwise now: its stream ends, and nobody waits for what it was asked."""
        self._expected.discard(name)
        if (node := self.nodes.pop(name, None)) is not None:
            if node.gone is not None:
                node.gone.cancel()
            self._tell(node, SubscribeResponse(goodbye=Goodbye(reason=reason)))
            if node.outbox is not None:
                node.outbox.put(None)
        for exchange in list(self.exchanges.values()):
            if attempt := exchange.waiting.pop(name, 0) or exchange.handed.pop(name, 0):
                what, advice = f"node {name!r} is not there any more: {reason}", "umbel nodes ls shows who is"
                exchange.post(Failed(name, attempt, _away(exchange, name, what, advice)))
        self._nodes_changed()

    def relabel(self, offer: Offer) -> None:
        """The operator has labelled a node; what it works on stays."""
        if (node := self.nodes.get(offer.name)) is not None:
            node.offer = offer
            self._nodes_changed()

    def goodbye(self, reason: str, wait: float) -> None:
        """Tell all nodes that the server ends."""
        for node in self.nodes.values():
            self._tell(node, SubscribeResponse(goodbye=Goodbye(reason=reason, wait=wait)))
            if node.outbox is not None:
                node.outbox.put(None)

    def _tell(self, node: HubNode, notice: SubscribeResponse) -> None:
        if node.outbox is not None:
            node.outbox.put(notice)

    def _nodes_changed(self) -> None:
        self.version += 1
        self.changed()

    def changed(self) -> None:
        """Let who waits for a change look again."""
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_result(None)
        self._watchers.clear()

    # --- population --------------------------------------------------------------------------

    def population(self, wanted: Wanted) -> dict[str, Mapping[str, str]]:
        """Who can be asked, with labels."""
        return {
            name: node.offer.labels
            for name, node in self.nodes.items()
            if node.present and wanted.wants(node.offer) and not wanted.refusal(node.offer)
        }

    async def gather(self, wanted: Wanted, at_least: int, wait: float, say: Callable[[str, float], None]) -> Population:
        """Wait until so many nodes are there, at most so many seconds; gives who is.

        Args:
            wanted: which ones.
            at_least: how many.
            wait: seconds.
            say: is told for whom it waits, and how many seconds more.

        Raises:
            EmptyPopulation: they were not; for whom it has waited.
        """
        at_least, until, said, again = max(at_least, 1), self._loop.time() + wait, "", 0.0
        await self._returned()
        while True:
            now = self._loop.time()
            enough = sum(node.present for node in self.nodes.values()) >= at_least  # a quick look before a close one
            found = self.population(wanted) if enough or now >= again or now >= until else {}
            if len(found) >= at_least:
                return Population(tuple(found), {name: labels for name, labels in found.items() if labels})
            if now >= again or now >= until:  # many may come at once
                words, again = self._waiting_for(wanted, len(found), at_least), now + _SAID_EVERY
                if now >= until:
                    raise EmptyPopulation(f"the run has waited {wait:g} seconds for {words}", advice=_WAITED)
                if words != said:
                    said = words
                    say(f"waits for {words}", until - now)
            await self.change(min(until, again) - now)

    def _waiting_for(self, wanted: Wanted, there: int, at_least: int) -> str:
        offers = [node.offer for node in self.nodes.values() if node.present]
        try:
            enrolled = [*self._enrolled()]
        except StoreError:  # the run waits on; it is said of fewer
            enrolled = [NodeRow(name=name, public_key=b"", labels=n.offer.labels) for name, n in self.nodes.items()]
        return waiting_for(wanted, offers, enrolled, there, at_least)

    async def _returned(self) -> None:
        """Nodes that were connected before this server started have come back, or had the time to."""
        while self._expected and (left := self._until - self._loop.time()) > 0:
            await self.change(left)
        self._expected.clear()

    async def change(self, timeout: float) -> None:
        """Wait until a node comes or goes, or clients are asked; at most so many seconds."""
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
        self.changed()

    def lease(self, run: str, tasks: Sequence[tuple[str, int]]) -> None:
        """Ask these clients, each with this attempt."""
        exchange = self.exchanges.get(run)
        if exchange is None:
            return
        for client, attempt in tasks:
            exchange.waiting[client] = attempt
            node = self.nodes.get(client)
            if node is None or not node.present:  # it has the time to come back that others have
                self._loop.call_later(self._patience, self._lose_unless_back, exchange, client, attempt)
            elif node.connected:
                self.dispatch(node)
        self.changed()

    def _lose_unless_back(self, exchange: OpenExchange, client: str, attempt: int) -> None:
        node = self.nodes.get(client)
        current = self.exchanges.get(exchange.run) is exchange and exchange.waiting.get(client) == attempt
        if current and (node is None or not node.present):
            self._lose(exchange, client)

    def dispatch(self, node: HubNode) -> None:
        """Give a node what it has free slots for."""
        while node.outbox is not None and len(node.working) < node.offer.slots:
            name = node.offer.name
            runs = [run for run, exchange in self.exchanges.items() if name in exchange.waiting]
            if not runs:
                return
            exchange = self.exchanges[min(runs, key=lambda run: node.served.get(run, 0))]
            attempt = exchange.handed[name] = exchange.waiting.pop(name)
            node.working.add(exchange.run)
            self._count += 1
            node.served[exchange.run] = self._count
            node.outbox.put(SubscribeResponse(task=exchange.task(name, attempt)))

    def answered(self, run: str, sequence: int, client: str) -> int:
        """A client's answer in this exchange is durable: its slot is free. Gives the attempt it counts for; 0: none.

        While it was written down the run may have gone on to another exchange, in which the client is asked, too.
        """
        exchange = self.exchanges.get(run)
        if exchange is None or exchange.sequence != sequence:
            return 0
        attempt = exchange.handed.pop(client, 0) or exchange.waiting.pop(client, 0)
        self._free(run, client)
        return attempt

    def awaited(self, run: str) -> str:
        """For which of those that it has asked a run waits while they are not connected, in words; "" for none."""
        exchange = self.exchanges.get(run)
        asked = (*exchange.waiting, *exchange.handed) if exchange is not None else ()
        away = sorted(name for name in asked if (node := self.nodes.get(name)) is None or not node.connected)
        if exchange is None or not away:
            return ""
        round, kind = exchange.label
        more = f", and {len(away) - _NAMED} more" if len(away) > _NAMED else ""
        return f"{kind} of round {round} waits for who is away: {', '.join(away[:_NAMED])}{more}"

    def names(self, client: str, digest: str) -> bool:
        """Does a task that this client works on name this blob?"""
        return any(client in e.handed and digest in e.blobs for e in self.exchanges.values())

    def works(self, client: str) -> bool:
        """Is this client asked for something?"""
        return any(e.awaits(client) for e in self.exchanges.values())

    def _free(self, run: str, client: str) -> None:
        node = self.nodes.get(client)
        if node is not None:
            node.working.discard(run)
            self.dispatch(node)

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
            if (node := self.nodes.get(client)) is not None and node.outbox is not None:
                node.outbox.revoke(which, reason)
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
        for node in self.nodes.values():
            node.served.pop(run, None)


__all__ = ["PATIENCE", "RETURN", "Hub", "HubNode", "Notices", "OpenExchange"]

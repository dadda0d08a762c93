"""The Ray actors of a simulation: as many as the cluster has room for, replaced when they are lost."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, final

from umbel.client.app import ClientApp
from umbel.errors import RunError
from umbel.simulation.member import surroundings
from umbel.simulation.ray_actor import KEPT, Actor, Asked, Report, Started
from umbel.simulation.ray_clock import Words, last_words
from umbel.simulation.shipping import pack_app

logger = logging.getLogger("umbel")
_IN_A_ROW = 5  # actors per member that may be lost without one answer in between
_LISTENING = 30.0  # seconds that the last words of an actor may take to come; Ray has to start a process for them
_SHORT = 0.1  # seconds; who needs less for its tasks is given the next ones before it has answered


@final
@dataclass(slots=True, eq=False)
class Piece:
    """Neighbouring places whose tasks one actor does.

    Attributes:
        exchange: the number of their exchange.
        tasks: client, attempt and place.
        folds: does the actor fold the updates? Else they come to the main process.
        together: are the clients a group that is trained together? Then whatever is done again, is done again whole.
        lost: how often an actor was lost with it.
        suspect: was an actor lost that had it to do? Then it is given to one that has nothing else to do: if that one
            is lost too, this is to blame. An actor's last answer may be lost with it, so of two nobody knows which.
        quiet: was its outcome told before, so that this is a repetition?
        report: what came of it.
        reporting, made: where Ray keeps the report, and the updates or the folded shard.
        sent: when it was sent; a time of this process's clock.
    """

    exchange: int
    tasks: list[Asked]
    folds: bool
    together: bool = False
    lost: int = 0
    suspect: bool = False
    quiet: bool = False
    report: Report | None = None
    reporting: Any = None
    made: Any = None
    sent: float = 0.0


@final
@dataclass(slots=True, eq=False)
class Member:
    """One actor, as the main process sees it.

    Attributes:
        actor: Ray's handle.
        starting: becomes ready with the actor; then None.
        started: what it said then.
        flight: what it was given to do, in order.
        pace: seconds that its last piece took.
    """

    actor: Any
    starting: Any
    started: Started | None = None
    flight: deque[Piece] = field(default_factory=deque)
    pace: float = _SHORT

    @property
    def room(self) -> bool:
        """Should it be given more to do?"""
        waiting = len(self.flight) < (2 if self.pace < _SHORT else 1)
        return self.starting is None and waiting and not any(piece.suspect for piece in self.flight)

    def takes(self, piece: Piece) -> bool:
        """May it be given this piece, if it has room?"""
        return not (piece.suspect and self.flight)


@final
@dataclass(frozen=True, slots=True)
class Load:
    """An app that actors were given."""

    key: int
    app: ClientApp  # kept, so that its id stays its own
    packed: bytes
    data: Any
    seed: int


@final
class RayCrew:
    """Actors that stay over several runs.

    Args:
        ray: the module.
        workers: how many; "auto": as many as the cluster has room for.
        threads: how many each handler may compute with.
        devices: "auto", or the name of a device.
        cpus, gpus: what Ray sets aside for each actor.
        limit: seconds that one task may take; None: any.
    """

    def __init__(
        self,
        ray: Any,
        *,
        workers: int | Literal["auto"],
        threads: int,
        devices: str,
        cpus: float,
        gpus: float,
        limit: float | None,
    ) -> None:
        self.ray, self._workers, self._cpus, self._gpus, self.limit = ray, workers, cpus, gpus, limit
        self._arguments = (threads, devices, limit)
        self._class = ray.remote(Actor).options(
            num_cpus=cpus,
            num_gpus=gpus,
            max_restarts=0,  # a lost actor is replaced by us: a new one needs the app
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": surroundings(threads)},
        )
        self.members: list[Member] = []
        self.exchanges = itertools.count()
        self._fewer: Counter[str] = Counter()  # by machine, how many actors it had too many
        self._keys = itertools.count()
        self._loads: OrderedDict[tuple[int, int], Load] = OrderedDict()
        self._in_a_row = 0

    def load(self, app: ClientApp, seed: int) -> int:
        """Give an app to all actors, and to those that come later; what it is called from now on."""
        known = self._loads.get((id(app), seed))
        packed = pack_app(app, warn=known is None)  # each time: what its functions refer to may have changed
        if known is None or known.packed != packed:
            known = Load(next(self._keys), app, packed, self.ray.put(packed), seed)
        for member in self.members:  # those that have it learn that it is in use
            member.actor.load.remote(known.key, known.data, seed)
        self._loads[id(app), seed] = known
        self._loads.move_to_end((id(app), seed))
        if len(self._loads) > KEPT:
            self._loads.popitem(last=False)
        return known.key

    def recruit(self) -> None:
        """As many actors as the cluster has room for."""
        wanted = self._room()
        idle = [m for m in self.members if m.starting is not None]
        for member in idle[: max(0, len(self.members) - wanted)]:
            self._dismiss(member)
        while len(self.members) < wanted:
            self.members.append(self._start())

    def _room(self) -> int:
        """How many actors the cluster has room for; at least one, since a cluster may grow."""
        if self._workers != "auto":
            room = self._workers
        else:
            there = self.ray.cluster_resources()
            needs = (("CPU", self._cpus), ("GPU", self._gpus))
            room = min(int(there.get(what, 0) / each + 1e-9) for what, each in needs if each)
        return max(1, room - sum(self._fewer[node] for node in (self._nodes() if self._fewer else ())))

    def _nodes(self) -> set[str]:
        """The machines that are there, as far as Ray knows."""
        return {node["NodeID"] for node in self.ray.nodes() if node["Alive"]}

    def _start(self) -> Member:
        actor = self._class.remote(*self._arguments)
        for load in self._loads.values():
            actor.load.remote(load.key, load.data, load.seed)
        return Member(actor, actor.hello.remote())

    def answered(self) -> None:
        """An actor has done what it was given, or is known to have been ended by a client."""
        self._in_a_row = 0

    def abandon(self) -> None:
        """What the actors were given is not wanted any more: they begin with no more of it."""
        for member in self.members:
            for piece in member.flight:  # in order: Ray 2.60 tells an actor only of what it does, not of what waits
                self.ray.cancel(piece.reporting, recursive=False)

    def last_words(self, member: Member) -> Words | None:
        """What a lost actor whose clock went off was doing; None: it was lost in another way, or nobody can say."""
        if self.limit is None or member.started is None or not member.flight:
            return None
        since = time.monotonic() - member.flight[0].sent
        if since < self.limit or member.started.node not in self._nodes():
            return None
        there = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        task = self.ray.remote(last_words).options(
            num_cpus=0, max_retries=0, scheduling_strategy=there(member.started.node, soft=False)
        )
        try:
            words: Words | None = self.ray.get(task.remote(member.started.file), timeout=_LISTENING)
        except self.ray.exceptions.RayError:  # the machine may be gone, too
            return None
        return words

    def is_shared(self, member: Member, *, surely: bool) -> bool:
        """Does another actor compute on the same device? One that is starting does not yet, but may soon."""
        if self._gpus >= 1:
            return False
        others = [other.started for other in self.members if other is not member]
        mine = member.started.device if member.started is not None else ""
        return any(other.device == mine if other is not None else not surely for other in others)

    def retire(self, member: Member) -> None:
        """End an actor, and let its machine have one fewer from now on."""
        if member.started is not None:
            self._fewer[member.started.node] += 1
        self._dismiss(member)

    def bury(self, member: Member, error: BaseException) -> str:
        """Replace an actor that was lost; why it was, in a line.

        Raises:
            RunError: actors are lost one after the other.
        """
        self._dismiss(member)
        self._in_a_row += 1
        why = reason(error)
        if self._in_a_row > _IN_A_ROW * max(1, len(self.members)):
            raise RunError(
                f"Ray workers are lost one after the other; the last one: {error}",
                advice="look into Ray's logs, for a lack of memory, and whether Umbel and what the client app imports "
                "are installed on all machines; umbel.Simulation(engine='inline') needs no workers",
            )
        self.recruit()
        return why

    def _dismiss(self, member: Member) -> None:
        self.members.remove(member)
        with contextlib.suppress(Exception):  # it may be gone, and Ray, too
            self.ray.kill(member.actor)

    def close(self) -> None:
        """End all actors now."""
        for member in list(self.members):
            self._dismiss(member)


def lost(ray: Any) -> tuple[type[BaseException], ...]:
    """What Ray raises when an actor, a machine or an object is gone."""
    names = ("RayActorError", "WorkerCrashedError", "NodeDiedError", "ObjectLostError", "OutOfMemoryError")
    return tuple(getattr(ray.exceptions, name) for name in names if hasattr(ray.exceptions, name))


def reason(error: BaseException) -> str:
    """The line of Ray's message that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "because" in line or "OOM" in line or "exit" in line.lower()]
    return (telling or lines or [type(error).__name__])[0][:300]


__all__ = ["Load", "Member", "Piece", "RayCrew", "lost", "reason"]

"""What the main process and its workers tell each other. Never anything from another machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, final

from umbel.client.context import ClientInfo
from umbel.client.failures import trace, words
from umbel.errors import Failure, UmbelError
from umbel.simulation.region import Handle
from umbel.simulation.units import Units
from umbel.spec import Spec
from umbel.update import Kind

if TYPE_CHECKING:
    from umbel.simulation.groups import Clients  # and with it all that workers have no use for, 10 ms of each start

# --- to a worker -----------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Search:
    """Where modules are to be found from now on.

    Attributes:
        path: the main process's.
        modules: files of modules that this path does not lead to, by name.
    """

    path: Sequence[str]
    modules: Mapping[str, str]


@final
@dataclass(frozen=True, slots=True)
class Hello:
    """The first thing a worker hears.

    Attributes:
        number, workers: which of how many it is.
        board: handles of the board.
        broadcast, updates: handles of the memory that it reads questions from, and puts updates in.
        threads: how many a handler may compute with.
        limit: seconds that one task may take; None: any.
        search: where modules are to be found.
        scratch: a directory for ``ctx.scratch``, made when it is needed.
    """

    number: int
    workers: int
    board: tuple[Handle, Handle]
    broadcast: Handle
    updates: Handle
    threads: int
    limit: float | None
    search: Search
    scratch: str


@final
@dataclass(frozen=True, slots=True)
class Load:
    """An app, and the conditions it runs under.

    Attributes:
        key: what it is called from now on.
        app: the `ClientApp`, pickled.
        seed: of the run.
        device: where handlers compute; "auto" or a name.
        forget: the key of an app that is not needed any more; -1: none.
    """

    key: int
    app: bytes
    seed: int
    device: str
    forget: int = -1


@final
@dataclass(frozen=True, slots=True)
class Cohort:
    """Clients, and what is known of them; by place in the list.

    Attributes:
        names: their names.
        parts: their index arrays, if the data set is split among them.
        sites, labels: settings and labels, of those that have any.
        stateful: who keeps a state.
    """

    names: list[str]
    parts: list[Any] | None
    sites: Mapping[str, Mapping[str, Any]]
    labels: Mapping[str, Mapping[str, str]]
    stateful: frozenset[str]

    @classmethod
    def of(cls, names: list[str], clients: Clients, stateful: frozenset[str]) -> Cohort:
        """The cohort of these clients."""
        known = [] if clients.only_names else [clients[name] for name in names]
        parts = [c.part for c in known]
        return cls(
            names=names,
            parts=parts if any(p is not None for p in parts) else None,
            sites={c.name: c.site for c in known if c.site},
            labels={c.name: c.labels for c in known if c.labels},
            stateful=stateful,
        )

    def client(self, index: int) -> ClientInfo:
        """One of them."""
        name = self.names[index]
        part = self.parts[index] if self.parts is not None else None
        return ClientInfo(name, self.labels.get(name, {}), part, self.sites.get(name, {}))

    def clients(self, places: Sequence[int]) -> list[ClientInfo]:
        """Some of them, in this order."""
        if self.parts is not None or self.labels or self.sites:
            return [self.client(place) for place in places]
        if isinstance(places, range) and places.step == 1:
            return [*map(ClientInfo, self.names[places.start : places.stop])]
        return [ClientInfo(self.names[place]) for place in places]

    def __reduce__(self) -> tuple[Any, ...]:
        joined = "\0".join(self.names)  # a thousand names as one string take half the time, in both processes
        names = joined if joined.count("\0") == len(self.names) - 1 else self.names
        return _cohort, (names, self.parts, self._sendable(), self.labels, self.stateful)

    def _sendable(self) -> Mapping[str, Any]:
        if not self.sites:
            return self.sites
        from umbel.simulation.settings import sendable  # what it imports is the main process's, and imports this

        return sendable(self.sites)


def _cohort(names: str | list[str], *known: Any) -> Cohort:
    return Cohort(names.split("\0") if isinstance(names, str) else names, *known)


@final
class Open(NamedTuple):
    """An exchange begins.

    Attributes:
        key: of the app.
        number: of the exchange in the life of the workers.
        question: the `Question`, pickled, its arrays in the broadcast memory.
        size: bytes of the broadcast memory.
        cohort: who is asked; a task is a place in this list.
        units: tasks that are done together; the board has their numbers.
    """

    key: int
    number: int
    question: bytes
    size: int
    cohort: Cohort
    units: Units


@final
@dataclass(frozen=True, slots=True)
class More:
    """There is more to do: these clients and units stand behind the others, and the board has some."""

    cohort: Cohort | None = None
    units: Units = field(default_factory=Units)


@final
class Room(NamedTuple):
    """There is room for an update again; the memory has so many bytes."""

    size: int


@final
@dataclass(frozen=True, slots=True)
class State:
    """The state of the client that was asked for."""

    values: Mapping[str, Any]


@final
@dataclass(frozen=True, slots=True)
class End:
    """The exchange is over; whoever waits for something in it waits in vain."""


# --- from a worker ---------------------------------------------------------------------------


@final
class Stored(NamedTuple):
    """Arrays that lie in the worker's memory."""

    spec: int
    offset: int


@final
class Answer(NamedTuple):
    """What came of one task.

    Attributes:
        task: which.
        kind: "model", "delta", "value"; "metrics" of an evaluation; "failure".
        weight, metrics: of the update.
        arrays: the update's own.
        extra: more of them.
        state: the client's next state; None: unchanged.
        failure: why it failed.
        full: did the memory of a device not suffice?
    """

    task: int
    kind: str
    weight: float = 0.0
    metrics: Mapping[str, Any] = {}
    arrays: Stored | None = None
    extra: Mapping[str, Stored] = {}
    state: Mapping[str, Any] | None = None
    failure: Failure | None = None
    full: bool = False


@final
class Lot(NamedTuple):
    """What came of several tasks: updates side by side.

    Attributes:
        tasks: which.
        kind: of the updates.
        spec: what each consists of, by the worker's number.
        weights, metrics: of each; no metrics if none has any.
        values: their bytes, or where they lie in the worker's memory.
    """

    tasks: Sequence[int]
    kind: Kind
    spec: int
    weights: Sequence[float]
    metrics: Sequence[Mapping[str, Any]]
    values: bytes | int


@final
class Rest(NamedTuple):
    """A worker has found nothing more to do, and has let go of the exchange until there is more.

    Attributes:
        heard: how often it was told that there is more. If there was more since, it does not rest any longer.
        held: pieces of the broadcast memory that user code still holds, of this exchange and of those before it; from
            where to where.
    """

    heard: int
    held: Sequence[tuple[int, int]]


@final
class Answers(NamedTuple):
    """What a worker did since it last said something.

    Attributes:
        number: of the exchange.
        answers: of one task each.
        lots: of several tasks each.
        specs: specs of arrays that it did not name before.
        seconds: what it spent on what: "training", "moving", "waiting".
        rest: said if it has found nothing more to do.
        starved: bytes that it needs to go on and has no room for; 0: it goes on.
        device: where it computes, if its code has asked.
        resident: bytes of memory that its process takes, said until something was done; 0: unknown.
    """

    number: int
    answers: list[Answer]
    lots: list[Lot]
    specs: list[Spec]
    seconds: Mapping[str, float]
    rest: Rest | None = None
    starved: int = 0
    device: str = ""
    resident: int = 0


@final
@dataclass(frozen=True, slots=True)
class AskState:
    """A worker needs the state of a client.

    Attributes:
        number: of the exchange.
        task: whose client it is.
    """

    number: int
    task: int


@final
@dataclass(frozen=True, slots=True)
class Loaded:
    """A worker has loaded an app."""


@final
@dataclass(frozen=True, slots=True)
class Broken:
    """A worker cannot load the app.

    Attributes:
        what: happened.
        traceback: of what happened.
        advice: what to do, if that is known; else "".
    """

    what: str
    traceback: str
    advice: str = ""

    @classmethod
    def by(cls, error: BaseException) -> Broken:
        """It raised this; of ours it is known what to do, a class of the user's may do anything."""
        if isinstance(error, UmbelError) and type(error).__module__ == UmbelError.__module__:
            return cls(f"{type(error).__name__}: {error.what}", trace(error), error.advice)
        return cls(words(error), trace(error))


__all__ = [
    "Answer",
    "Answers",
    "AskState",
    "Broken",
    "Cohort",
    "End",
    "Hello",
    "Load",
    "Loaded",
    "Lot",
    "More",
    "Open",
    "Rest",
    "Room",
    "State",
    "Stored",
]

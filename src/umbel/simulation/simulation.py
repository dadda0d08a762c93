"""`Simulation`: who the clients are, and the engine that runs them on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal, Self, final

import numpy as np

from umbel.client.app import ClientApp
from umbel.client.context import ClientInfo
from umbel.client.determinism import isolated
from umbel.client.work import Bench
from umbel.codec import describe
from umbel.errors import UsageError
from umbel.sample import Population
from umbel.simulation.folding import ClientStates
from umbel.simulation.inline import Inline

Engine = Literal["auto", "inline", "processes"]
_ALONE = threading.RLock()
_KEPT = 4  # pairs of app and seed whose set-up and data are kept between the runs of a sweep


@final
class Roster:
    """The clients of a simulation, by name."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        parts: Sequence[Any] | None = None,
        sites: Mapping[str, Mapping[str, Any]] | None = None,
        labels: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        for name in names:
            _check_name(name)
        if len(set(names)) != len(names):
            twice = next(name for name, count in Counter(names).items() if count > 1)
            raise UsageError(f"two clients are called {twice!r}", advice="give each client a name of its own")
        self.population = Population(tuple(names), _labels(labels or {}))
        indexes = [_part(name, part) for name, part in zip(names, parts, strict=True)] if parts is not None else []
        self._parts = dict(zip(names, indexes, strict=False))
        self._sites = sites or {}

    def __getitem__(self, name: str) -> ClientInfo:
        part = self._parts.get(name)
        return ClientInfo(
            name=name,
            labels=dict(self.population.labels.get(name, {})),
            # a copy that can be written to, since torch warns of arrays that cannot
            part=part.copy() if part is not None else None,
            site=self._sites.get(name, {}),
        )

    def __len__(self) -> int:
        return len(self.population)

    def __contains__(self, name: object) -> bool:
        return name in self.population

    def recipe(self) -> Mapping[str, Any]:
        """What identifies these clients: how many, and digests of names, parts and settings."""
        digest = hashlib.sha256()
        for name in self.population.names:
            digest.update(f"{len(name)}:{name}".encode())
            if name in self._parts:
                part = self._parts[name]
                digest.update(f"{part.dtype}{part.shape}".encode() + part.tobytes())
        sites = {name: describe(site) for name, site in sorted(self._sites.items())}
        labels = {name: dict(own) for name, own in self.population.labels.items()}
        return {"count": len(self), "names and parts": digest.hexdigest()[:16], "sites": sites, "labels": labels}


def roster(clients: Any, labels: Mapping[str, Mapping[str, str]] | None) -> Roster:
    """Clients from a number, names, a partition, or settings by name.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(clients, bool) or clients is None:
        raise UsageError(f"clients is {clients!r}", advice="give a number, names, a partition, or {name: settings}")
    if isinstance(clients, int | np.integer):
        if clients < 0:
            raise UsageError(f"clients is {clients}", advice="give how many there are")
        return Roster([str(i) for i in range(int(clients))], labels=labels)
    if isinstance(clients, Mapping):
        for name, site in clients.items():
            if not isinstance(site, Mapping):
                raise UsageError(
                    f"the settings of client {name!r} are a {type(site).__name__}",
                    advice='give a mapping: {"berlin": {"path": "berlin.csv"}}',
                )
        return Roster([str(n) for n in clients], sites={str(n): dict(s) for n, s in clients.items()}, labels=labels)
    if isinstance(clients, str | bytes) or not isinstance(clients, Sequence):
        raise UsageError(
            f"clients is a {type(clients).__name__}",
            advice="give a number, a list of names, a partition, or {name: settings}",
        )
    if all(isinstance(c, str) for c in clients):
        return Roster(list(clients), labels=labels)
    names = getattr(clients, "names", None) or [str(i) for i in range(len(clients))]
    return Roster(list(names), parts=list(clients), labels=labels)


def _check_name(name: Any) -> None:
    try:
        good = isinstance(name, str) and bool(name.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        good = False
    if not good:
        raise UsageError(f"a client is called {name!r}", advice="a name is text that is not empty, in valid Unicode")


def _part(name: str, value: Any) -> Any:
    try:
        part = np.asarray(value)
    except ValueError:  # lists of different lengths
        part = np.empty(1, object)
    if part.ndim == 0 or (part.size and part.dtype.kind not in "biu"):
        raise UsageError(
            f"the part of client {name!r} is a {type(value).__name__}, not an array of indexes",
            advice="give clients=umbel.partition.iid(...) or index arrays, or names, and load the data in @client.data",
        )
    return np.ascontiguousarray(part)


def _labels(labels: Any) -> dict[str, dict[str, str]]:
    if not isinstance(labels, Mapping):
        raise UsageError(f"labels are a {type(labels).__name__}", advice='give {"berlin": {"country": "de"}}')
    for client, own in labels.items():
        if not isinstance(own, Mapping) or not all(isinstance(text, str) for pair in own.items() for text in pair):
            raise UsageError(
                f"the labels of client {client!r} are {own!r}", advice='labels are text by name: {"country": "de"}'
            )
    return {client: dict(own) for client, own in labels.items()}


@final
class Simulation:
    """A federation on this machine; give it to ``umbel.run(on=...)``.

    Args:
        clients: how many (they are called "0", "1", ...); or their names; or a partition, see `umbel.partition`,
            whose index arrays become ``ctx.client.part``; or ``{name: settings}``, which become ``ctx.site``.
        engine: "inline" does every task in the calling thread, one after the other; breakpoints work. "auto" is
            that, too.
        workers: how many processes work; the inline engine is one: "auto" or 1.
        threads: how many threads each handler may compute with. Results depend on it.
        devices: "auto" (a GPU if torch is in use and has one), or a name such as "cpu" or "cuda:0".
        per_device: how many clients share a device; the inline engine does one after the other: 1.
        labels: what is known of clients, for samplers that select by label: ``{name: {label: value}}``.

    As a context manager it keeps what ``@client.setup`` and ``@client.data`` made from one run to the next, where
    app and seed are the same; of the last four pairs of these.

    Raises:
        UsageError: an argument that makes no sense.
    """

    def __init__(
        self,
        clients: Any,
        *,
        engine: Engine = "auto",
        workers: int | Literal["auto"] = "auto",
        threads: int = 1,
        devices: str = "auto",
        per_device: int = 1,
        labels: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        if engine not in ("auto", "inline", "processes"):
            raise UsageError(f"there is no engine {engine!r}", advice='take "auto", "processes" or "inline"')
        if type(threads) is not int or threads < 1:
            raise UsageError(f"threads is {threads!r}", advice="give a whole number >= 1")
        self.clients = roster(clients, labels)
        self.engine, self.threads, self.devices = engine, threads, devices
        self.workers = workers
        self._pool = None
        self._kept: OrderedDict[tuple[int, int], tuple[ClientApp, Bench]] | None = None

    def __enter__(self) -> Self:
        self._kept = OrderedDict()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kept = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """The conditions of a run: so many threads, and the caller's generators untouched.

        Raises:
            UsageError: another thread of this process is inside; runs within a run are lawful.
        """
        if not _ALONE.acquire(blocking=False):
            raise UsageError(
                "another thread of this process is running a simulation",
                advice="run one after the other, or each in a process of its own: handlers draw from random, "
                "numpy.random and torch, which all threads share",
            )
        try:
            with isolated(self.threads):
                yield
        finally:
            if self._kept is None and self._pool is not None:
                self._pool.close()
                self._pool = None
            _ALONE.release()

    def runner(self, app: ClientApp, seed: int, states: ClientStates, *, debug: bool = False) -> Inline:
        """What does the tasks of one run."""
        if self.engine == "processes" and not debug:
            from umbel.simulation.messages import Load
            from umbel.simulation.pool import Pool
            from umbel.simulation.processes import Processes
            from umbel.simulation.shipping import pack_app

            if self._pool is None:
                self._pool = Pool(2 if self.workers == "auto" else self.workers, threads=self.threads, limit=None)
            load = Load(key=id(app) ^ seed, app=pack_app(app), seed=seed, device=self.devices)
            return Processes(self.clients, self._pool, load, states, has_data="data" in app.handlers)
        return Inline(self.clients, self._bench(app, seed), states, debug=debug)

    def _bench(self, app: ClientApp, seed: int) -> Bench:
        def make() -> Bench:
            return Bench(app, seed, threads=self.threads, devices=self.devices)

        if self._kept is None:
            return make()
        kept = self._kept.pop((id(app), seed), None) or (app, make())
        self._kept[id(app), seed] = kept  # with the app, so that its id stays its own
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return kept[1]

    def recipe(self) -> Mapping[str, Any]:
        """What a run's result depends on here."""
        return {"clients": self.clients.recipe(), "threads": self.threads}

    def __repr__(self) -> str:
        return f"Simulation({len(self.clients)} clients, engine={self.engine!r})"


__all__ = ["Engine", "Simulation"]

"""`Simulation`: who the clients are, and the engine that runs them on this machine."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, final

from umbel.arguments import whole
from umbel.arrays import Array
from umbel.client.app import ClientApp
from umbel.client.context import gpus
from umbel.client.work import Bench
from umbel.engine.folding import ClientStates
from umbel.engine.ports import Runner
from umbel.errors import UsageError
from umbel.simulation import auto
from umbel.simulation.auto import Auto
from umbel.simulation.cpus import cores
from umbel.simulation.groups import is_grouped
from umbel.simulation.inline import Inline
from umbel.simulation.limits import time_limit
from umbel.simulation.place import Place
from umbel.simulation.roster import roster
from umbel.simulation.single import OneClient
from umbel.spread import Work, one_by_one

if TYPE_CHECKING:
    from umbel.simulation.crew import Crew
    from umbel.simulation.processes import Processes

Engine = Literal["auto", "inline", "processes"]
_KEPT = 4  # pairs of app and seed whose set-up and data are kept between the runs of a sweep


@final
class Simulation(Place):
    """A federation on this machine; give it to ``umbel.run(on=...)``.

    Args:
        clients: how many (they are called "0", "1", ...); or their names; or a partition, see `umbel.partition`,
            whose index arrays become ``ctx.client.part``; or ``{name: settings}``, which become ``ctx.site``.
        engine: "processes" has worker processes do the tasks; "inline" does every task in the calling thread, one
            after the other, and breakpoints work. "auto" begins inline and goes on with worker processes when a run
            lasts, so that a small one need not wait for them. The result has the same bits.
        workers: how many worker processes; "auto": ``per_device`` for each GPU that is used; where none is, as many as
            the machine has cores, and memory for.
        threads: how many threads each handler may compute with. Results depend on it.
        devices: "auto" (all GPUs if torch is in use and has any; workers take them in turn), or a name such as "cpu" or
            "cuda:0".
        per_device: how many workers share a GPU.
        limit: seconds that one task of a client may take; longer is a failure. With it "auto" has worker processes from
            the start, and "inline" does not heed it. None: any.
        labels: what is known of clients, for samplers that select by label: ``{name: {label: value}}``.

    As a context manager it keeps its worker processes, and what ``@client.setup`` and ``@client.data`` made, from one
    run to the next, where app and seed are the same; of the last four pairs of these.

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
        limit: float | None = None,
        labels: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        if engine not in ("auto", "inline", "processes"):
            raise UsageError(f"there is no engine {engine!r}", advice='take "auto", "processes" or "inline"')
        threads, per_device = whole(threads, "threads"), whole(per_device, "per_device")
        if not isinstance(workers, str) or workers != "auto":
            workers = whole(workers, "workers")
        if engine == "inline" and workers not in ("auto", 1):
            raise UsageError(
                f"workers is {workers!r}, and the inline engine is one", advice="take engine='processes', or workers=1"
            )
        self.clients = roster(clients, labels)
        self.engine, self.workers, self.threads = engine, workers, threads
        self.devices, self.per_device, self.limit = devices, per_device, time_limit(limit)
        self._kept: OrderedDict[tuple[int, int], tuple[ClientApp, Bench]] | None = None
        self._crew: Crew | None = None
        self._app: ClientApp | None = None

    def __enter__(self) -> Self:
        self._kept = OrderedDict()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kept = None
        self._end_workers(now=error is not None)

    def rest(self, *, clean: bool, within: bool) -> None:
        """A run is over: end the workers, unless they are kept."""
        if not within and (self._kept is None or not clean):
            self._end_workers(now=not clean)
        elif not within and self._crew is not None:
            self._crew.rest()

    def _end_workers(self, *, now: bool) -> None:
        if self._crew is not None:
            crew, self._crew = self._crew, None
            crew.close(now=now)

    def lend(self, size: int) -> Array | None:
        """So many bytes where workers see them, so that a new model can be sent without a copy; see `Place.lend`."""
        return self._crew.lend(size) if self._crew is not None and self._crew.is_ours else None

    def share_out(self, work: Work, parts: Sequence[slice]) -> bool:
        """With helpers, where there are several workers: while this process computes they mostly wait."""
        share_out = self._crew.sharing if self._crew is not None and self._crew.is_ours else one_by_one
        return share_out(work, parts)

    def runner(self, app: ClientApp, seed: int, states: ClientStates, *, debug: bool = False) -> Runner:
        """What does the tasks of one run."""
        self._app = app

        def processes() -> Processes:
            return self._workers().runner(app, seed, states)

        def inline() -> Inline:
            return Inline(
                self.clients, self._bench(app, seed), states, grouped=is_grouped(app, self.clients), debug=debug
            )

        limited = self.engine == "auto" and self.limit is not None  # a task can be ended in a worker process alone
        if (self.engine == "processes" or limited) and not debug:
            return processes()
        if self.engine == "inline" or debug or self.workers == 1 or cores() == 1:
            return inline()
        if self._crew is not None and self._crew.is_ours:
            return processes()
        return Auto(inline(), processes, patience=auto.patience)

    def _workers(self) -> Crew:
        if self._crew is None or not self._crew.is_ours:
            from umbel.simulation.crew import Crew

            self._crew = Crew(
                self.clients,
                workers=self._most() if self.workers == "auto" else self.workers,
                chosen=self.workers != "auto",
                threads=self.threads,
                devices=self.devices,
                limit=self.limit,
            )
        return self._crew

    def _most(self) -> int:
        """How many workers there are at first, if nobody says."""
        on_gpus = gpus() if self.devices == "auto" else int(self.devices.startswith("cuda"))
        return on_gpus * self.per_device or cores()

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

    def client(self, name: str | int, app: ClientApp | None = None, *, seed: int = 0) -> OneClient:
        """One client in the calling process, for a debugger: ``sim.client("17").train(model, round=3)``.

        Args:
            name: the client's name.
            app: the clients' side; by default that of the last run here.
            seed: of the run whose random numbers it is to draw.

        Raises:
            UsageError: there is no such client, or no run was here and no app is given.
        """
        app = app or self._app
        if app is None:
            raise UsageError("nothing has run here yet", advice="say which app: sim.client(name, app)")
        if str(name) not in self.clients:
            raise UsageError(f"there is no client {str(name)!r}", advice="give the name of one of them")
        return OneClient(app, self.clients[str(name)], seed=seed, place=self)

    def __repr__(self) -> str:
        return f"Simulation({len(self.clients)} clients, engine={self.engine!r})"


__all__ = ["Engine", "Simulation"]

"""`Ray`: who the clients are, and a Ray cluster that does their tasks."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Literal, Self, final

from umbel.arguments import whole
from umbel.client.app import ClientApp
from umbel.client.work import Bench
from umbel.engine.folding import ClientStates
from umbel.engine.ports import Runner
from umbel.errors import RunError, UsageError
from umbel.simulation.groups import is_grouped
from umbel.simulation.inline import Inline
from umbel.simulation.limits import time_limit
from umbel.simulation.place import Place
from umbel.simulation.ray_crew import RayCrew
from umbel.simulation.ray_runner import RayRunner
from umbel.simulation.roster import roster


@final
class Ray(Place):
    """A federation on a Ray cluster; give it to ``umbel.run(on=...)``. Needs ``pip install 'umbel[ray]'``.

    Actors of the cluster do the tasks of whole shards, 64 clients each, and fold them; the program that calls
    ``umbel.run`` merges the shards. The result has the same bits as on one machine.

    Args:
        address: as ``ray.init`` takes it. None: a cluster that runs already (``RAY_ADDRESS``, or one on this machine),
            else a new one on this machine. "auto": one that runs. "local": a new one. "ray://head:10001" or
            "head:6379": that one. Where the program called ``ray.init`` itself, that Ray is used, and not ended.
        clients: how many (they are called "0", "1", ...); or their names; or a partition, see `umbel.partition`,
            whose index arrays become ``ctx.client.part``; or ``{name: settings}``, which become ``ctx.site``.
        workers: how many actors; "auto": as many as the cluster has CPUs and GPUs for, looked up at each exchange.
        cpus: CPUs that Ray sets aside for each of them, by default ``threads``.
        gpus: GPUs that Ray sets aside for each of them; 0.25: four share one; 0: handlers compute on the CPU.
        threads: how many threads each handler may compute with. Results depend on it.
        devices: "auto" (the GPU that Ray set aside, ``ctx.device == "cuda:0"``), or a name such as "cpu".
        limit: seconds that one task of a client may take; longer is a failure. None: any.
        labels: what is known of clients, for samplers that select by label: ``{name: {label: value}}``.

    As a context manager it keeps the actors, and what ``@client.setup`` and ``@client.data`` made there, from one run
    to the next; and a Ray that was started for it.

    Raises:
        UsageError: an argument that makes no sense, or Ray is not installed.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        clients: Any,
        workers: int | Literal["auto"] = "auto",
        cpus: float | None = None,
        gpus: float = 0,
        threads: int = 1,
        devices: str = "auto",
        limit: float | None = None,
        labels: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        if address is not None and not isinstance(address, str):
            raise UsageError(
                f"address is {address!r}", advice='give "auto", "local", "ray://head:10001", or nothing; clients=100'
            )
        threads = whole(threads, "threads")
        if workers != "auto":
            workers = whole(workers, "workers")
        limit = time_limit(limit)
        cpus = threads if cpus is None else cpus
        for name, number in (("cpus", cpus), ("gpus", gpus)):
            if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < math.inf:
                raise UsageError(f"{name} is {number!r}", advice="give a number >= 0, as ray.remote takes it")
        if not cpus and not gpus and workers == "auto":
            raise UsageError("an actor needs neither CPUs nor GPUs", advice="say how many: workers=8, or cpus=1")
        if "ray" not in sys.modules and find_spec("ray") is None:
            raise UsageError("Ray is not installed", advice="pip install 'umbel[ray]', or take umbel.Simulation")
        self.clients = roster(clients, labels)
        self.address, self.workers, self.cpus, self.gpus = address, workers, cpus, gpus
        self.threads, self.devices, self.limit = threads, devices, limit
        self._kept = False
        self._started = False  # did we start, or connect to, this Ray?
        self._crew: RayCrew | None = None

    def __enter__(self) -> Self:
        self._kept = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kept = False
        self.rest(clean=error is None, within=False)

    def rest(self, *, clean: bool, within: bool) -> None:
        """A run is over: end the actors, unless they are kept, and Ray, if it was started here."""
        if within:
            return
        if self._crew is not None and (not self._kept or not clean):
            self._crew.close()
            self._crew = None
        if self._started and not self._kept:
            self._started = False
            import_module("ray").shutdown()

    def runner(self, app: ClientApp, seed: int, states: ClientStates, *, debug: bool = False) -> Runner:
        """What does the tasks of one run; with ``debug`` the calling process does."""
        if debug:
            bench = Bench(app, seed, threads=self.threads, devices=self.devices)
            return Inline(self.clients, bench, states, grouped=is_grouped(app, self.clients), debug=True)
        ray = self._connected()
        if self._crew is None:
            self._crew = RayCrew(
                ray,
                workers=self.workers,
                threads=self.threads,
                devices=self.devices,
                cpus=self.cpus,
                gpus=self.gpus,
                limit=self.limit,
            )
        return RayRunner(
            self.clients, self._crew, self._crew.load(app, seed), states, grouped=is_grouped(app, self.clients)
        )

    def _connected(self) -> Any:
        ray = import_module("ray")
        if ray.is_initialized():
            return ray
        self._crew = None  # if there is one, somebody ended its Ray
        arguments = {} if "://" in (self.address or "") else {"include_dashboard": False}
        try:
            ray.init(address=self.address, logging_level=logging.WARNING, **arguments)
        except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
            raise RunError(
                f"Ray cannot be reached at {self.address!r}: {error}",
                advice="start it with `ray start --head`, or let address='local' start one on this machine",
            ) from error
        self._started = True
        return ray

    def __repr__(self) -> str:
        return f"Ray({self.address!r}, {len(self.clients)} clients)"


__all__ = ["Ray"]

"""The workers of one simulation over its runs: who they are, and what they were told."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import final

from umbel.client.app import ClientApp
from umbel.simulation.folding import ClientStates
from umbel.simulation.messages import Load
from umbel.simulation.pool import Pool
from umbel.simulation.processes import Processes
from umbel.simulation.roster import Roster
from umbel.simulation.shipping import pack_app
from umbel.simulation.threads import Threads

_FOLDING = 8  # threads; more would wait for the memory and not for each other


@final
class Crew:
    """Worker processes that stay over several runs.

    Args:
        clients: who there is.
        workers: how many processes.
        chosen: did the user say how many?
        threads: how many each computes with.
        devices: "auto", or the name of a device.
        per_device: how many share a GPU.
        limit: seconds that a task may take; None: any.
    """

    def __init__(
        self,
        clients: Roster,
        *,
        workers: int,
        chosen: bool,
        threads: int,
        devices: str,
        per_device: int,
        limit: float | None,
    ) -> None:
        self._clients, self._devices = clients, devices
        self._pool = Pool(workers, threads=threads, limit=limit)
        self._threads = Threads(min(_FOLDING, workers))
        self._keys = itertools.count()
        self._loads: OrderedDict[tuple[int, int], tuple[ClientApp, Load]] = OrderedDict()
        self._running: Processes | None = None

    @property
    def broken(self) -> bool:
        """Is a worker in the middle of something that nobody waits for?"""
        return self._running is not None and self._running.busy

    def runner(self, app: ClientApp, seed: int, states: ClientStates) -> Processes:
        """What does the tasks of one run."""
        known = self._loads.get((id(app), seed))
        if known is None:
            load = Load(key=next(self._keys), app=pack_app(app), seed=seed, device=self._devices)
            known = self._loads[id(app), seed] = (app, load)
            self._pool.load(load)
        self._running = Processes(
            self._clients, self._pool, known[1], states, has_data="data" in app.handlers, spread=self._threads
        )
        return self._running

    def close(self) -> None:
        """End all workers."""
        self._pool.close()
        self._threads.close()


__all__ = ["Crew"]

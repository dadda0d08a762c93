"""The workers of one simulation over its runs: who they are, and what they were told."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import final

from umbel.arrays import Array
from umbel.client.app import ClientApp
from umbel.engine.folding import ClientStates
from umbel.simulation.groups import is_grouped
from umbel.simulation.messages import Load
from umbel.simulation.pool import Pool
from umbel.simulation.processes import Processes
from umbel.simulation.roster import Roster
from umbel.simulation.settings import check_sendable
from umbel.simulation.sharing import Sharing
from umbel.simulation.shipping import pack_app

_KEPT = 4  # apps and seeds whose set-up and data workers keep
_MOST = 4  # who work on large arrays at once; more would wait for the memory and not for each other


@final
class Crew:
    """Worker processes that stay over several runs.

    Args:
        clients: who there is.
        workers: how many processes.
        chosen: did the user say how many?
        threads: how many each computes with.
        devices: "auto", or the name of a device.
        limit: seconds that a task may take; None: any.

    Attributes:
        sharing: of what this process does with large arrays.
    """

    def __init__(
        self,
        clients: Roster,
        *,
        workers: int,
        chosen: bool,
        threads: int,
        devices: str,
        limit: float | None,
    ) -> None:
        check_sendable(clients.sites)
        self._clients, self._devices, self._chosen = clients, devices, chosen
        self._pool = Pool(workers, threads=threads, limit=limit)
        self.sharing = Sharing(min(_MOST, workers))
        self._keys = itertools.count()
        self._loads: OrderedDict[tuple[int, int], tuple[ClientApp, Load]] = OrderedDict()
        self._running: Processes | None = None

    @property
    def is_ours(self) -> bool:
        """Is this the process that the workers belong to, and not a fork of it?"""
        return self._pool.is_ours

    def lend(self, size: int) -> Array | None:
        """Memory for a large array of this process, where workers see it; None: any other will do."""
        return self._pool.broadcast.lend(size)

    def rest(self) -> None:
        """Between runs: give back memory."""
        if self.is_ours:
            self._pool.broadcast.trim()
            self.sharing.forget_closed()

    def runner(self, app: ClientApp, seed: int, states: ClientStates) -> Processes:
        """What does the tasks of one run."""
        if self._running is not None:
            self._running.abandon()
        self._running = Processes(
            self._clients,
            self._pool,
            self._loaded(app, seed),
            states,
            has_data="data" in app.handlers,
            chosen=self._chosen,
            grouped=is_grouped(app, self._clients),
        )
        return self._running

    def _loaded(self, app: ClientApp, seed: int) -> Load:
        """The message that gave workers the app, with its seed; it is sent if they do not have it."""
        self._pool.search_anew()
        known = self._loads.pop((id(app), seed), None)
        packed = pack_app(app, warn=known is None)  # each time: what its functions refer to may have changed
        if known is None or known[1].app != packed:
            old = self._loads.popitem(last=False)[1] if known is None and len(self._loads) == _KEPT else known
            forget = old[1].key if old is not None else -1
            load = Load(key=next(self._keys), app=packed, seed=seed, device=self._devices, forget=forget)
            known = (app, load)  # with the app, so that its id stays its own
            self._pool.load(load)
        self._loads[id(app), seed] = known
        return known[1]

    def close(self, *, now: bool = False) -> None:
        """End all workers; now, or when they have done what programs do at their end."""
        try:
            self._pool.close(now=now)
        finally:
            try:
                self.sharing.close()
            except KeyboardInterrupt:
                self.sharing.close()  # it goes on where it was
                raise


__all__ = ["Crew"]

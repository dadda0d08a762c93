"""The client's states on a node: one file for each run, versioned by the exchanges that gave them.

A task names the exchange whose state the client begins with. What is newer did not count and is dropped, so redoing a
task is always safe; that version and the newest are kept. A node has one client, which may be renamed: its name
stands in no file.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from umbel.errors import CorruptFile, DiskFull, StoreError
from umbel.store.client_states import FileClientStates
from umbel.store.durable import readable_errors

_OPEN = 16  # databases that stay open
_FILE = re.compile(r"[0-9a-f]{32}\.sqlite")
_VERSION = "umbel.exchange"  # of the state's own mapping: which exchange gave it
_CLIENT = "client"  # whose state it is, in the files
_ROOM = 64 << 20  # bytes that are to be free on the disk before old runs' states go


@final
class StateLost(Exception):
    """The version that a task begins with is not here."""


@final
class NodeStates:
    """The states of all runs. Not for several threads at once.

    Args:
        directory: where the files lie; it is made if it does not exist.
        keep: seconds after which the state of a run that asked for nothing more is removed; 0: never.
        now: seconds since 1970.
    """

    def __init__(self, directory: Path, *, keep: float, now: Callable[[], float]) -> None:
        self._directory, self._keep, self._now = directory, keep, now
        with readable_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
        self._open: OrderedDict[str, FileClientStates] = OrderedDict()

    def begin(self, run: str, version: int) -> Mapping[str, Any]:
        """The state that a task begins with; newer ones are dropped.

        Args:
            run: 32 hex digits.
            version: the exchange that gave it; 0: it begins with none.

        Raises:
            StateLost: that version is not here.
        """
        if not self.are_of(run):
            if version:
                raise StateLost
            return {}
        with suppress(OSError):  # it may be open, and not have a file yet
            os.utime(self._path(run), (self._now(), self._now()))
        try:
            states = self._of(run)
            states.go_back(version)
            state = dict(states.read(_CLIENT)) if version else {}
        except CorruptFile as error:
            if version:
                raise StateLost from error
            self.forget(run)
            return {}
        if version and state.pop(_VERSION, None) != version:
            raise StateLost
        return state

    def are_of(self, run: str) -> bool:
        """Are there any states of this run? May be called by any thread."""
        return run in self._open or self._path(run).exists()

    def write(self, run: str, version: int, state: Mapping[str, Any], *, after: int) -> None:
        """Keep a new state; on the disk when this returns.

        Args:
            run: 32 hex digits.
            version: the exchange that gave it.
            state: the state.
            after: the version that the client began with, which is kept, too.

        Raises:
            DiskFull: there is no room, not even after old runs' states were removed.
        """
        try:
            self._write(run, version, state, after)
        except DiskFull:
            if not self._make_room(run):
                raise
            self._write(run, version, state, after)

    def _write(self, run: str, version: int, state: Mapping[str, Any], after: int) -> None:
        states = self._of(run)
        states.points = (after,)
        states.write(version, {_CLIENT: {**state, _VERSION: version}})

    def has(self, run: str, version: int) -> bool:
        """Is this version the newest that is here?"""
        if not self._path(run).exists():
            return False
        try:
            return self._of(run).read(_CLIENT).get(_VERSION) == version
        except StoreError:
            return False

    def _path(self, run: str) -> Path:
        name = f"{run}.sqlite"
        if not _FILE.fullmatch(name):
            raise StoreError(f"a run is not called {run!r}")
        return self._directory / name

    def _of(self, run: str) -> FileClientStates:
        states = self._open.pop(run, None)
        if states is None:
            states = FileClientStates(self._path(run))
            states.run = run
        self._open[run] = states
        while len(self._open) > _OPEN:
            self._open.popitem(last=False)[1].close()
        return states

    def forget(self, run: str) -> None:
        """Remove a run's state."""
        states = self._open.pop(run, None)
        if states is not None:
            states.close()
        path = self._path(run)
        for suffix in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)

    def sweep(self) -> list[str]:
        """Remove states of runs that have asked for nothing for so long; gives whose."""
        if not self._keep:
            return []
        gone = []
        for run in [run for run, used in self._runs() if self._now() - used > self._keep]:
            with suppress(OSError):  # the next time may do better
                self.forget(run)
                gone.append(run)
        return gone

    def _make_room(self, run: str) -> bool:
        """Remove the state of the run that has asked for nothing for the longest time, but not of this one."""
        others = [other for other, _ in self._runs() if other != run and other not in self._open]
        for other in others:
            self.forget(other)
            if shutil.disk_usage(self._directory).free >= _ROOM:
                break
        return bool(others)

    def _runs(self) -> list[tuple[str, float]]:
        """Runs with a state here and when they last asked for it or gave one, the longest ago first."""
        last: dict[str, float] = {}
        for entry in os.scandir(self._directory):
            run = entry.name.partition(".")[0]
            if _FILE.fullmatch(entry.name.removesuffix("-wal")):
                last[run] = max(last.get(run, 0.0), entry.stat().st_mtime)
        return sorted(last.items(), key=lambda item: item[1])

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1].close()


__all__ = ["NodeStates", "StateLost"]

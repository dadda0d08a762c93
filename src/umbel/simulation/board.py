"""The list of tasks that all workers take from, in shared memory: no message is sent for a single task.

    header    next, end of the list, tasks, exchange    int64 each
    workers   what each does                  int64 per worker
    then row by row
    order     which task comes there          int32 per place in the list
    home      which worker has its data       int16 per place in the list, -1: none
    taker     which worker took it            int16 per task, -1: none

Everything here is read and written while the lock is held, all but what a worker does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from umbel.simulation.lock import ProcessLock
from umbel.simulation.region import Handle, Region

WINDOW = 64  # so far ahead of the others a worker looks for clients whose data it has, if it does not say otherwise
NOBODY = -1
_HEAD = 64  # bytes before the workers' numbers


@final
class Board:
    """The tasks of one exchange, and who does which.

    Args:
        workers: how many there are.
        capacity: for how many tasks there is room.
        handles: of region and lock, in a worker; None makes new ones.

    Attributes:
        capacity: for how many tasks there is room.
        exchange: the number of the one whose tasks this process publishes, or takes: it may be over here, and the next
            one have begun, before a worker hears of it.
    """

    def __init__(self, workers: int, capacity: int = 1024, handles: tuple[Handle, Handle] | None = None) -> None:
        self._workers = workers
        region, lock = handles or (None, None)
        self._lock = ProcessLock(lock)
        try:
            self._region = Region(_size(workers, capacity), region)
        except BaseException:
            self._lock.close()
            raise
        self.capacity = self.exchange = 0
        self.resize(capacity)
        if handles is None:
            for worker in range(workers):
                self.note(worker, NOBODY)

    @property
    def handles(self) -> tuple[Handle, Handle]:
        """What another process needs to see the same board."""
        return self._region.handle, self._lock.handle

    def resize(self, capacity: int) -> None:
        """Make room for so many tasks; in a worker, see the room that was made."""
        if capacity <= self.capacity:
            return
        self._region.resize(_size(self._workers, capacity))
        self.capacity = capacity
        tasks = _HEAD + 8 * self._workers
        self._head = self._region.array(0, 4, np.int64)
        self._doing = self._region.array(_HEAD, self._workers, np.int64).data  # quicker for a number than the array
        # row by row, so that nothing moves when there are more
        rows = self._region.array(tasks, 4 * capacity, np.int16).reshape(-1, 4)
        self._order, self._home, self._taker = rows[:, :2].view(np.int32)[:, 0], rows[:, 2], rows[:, 3]

    # --- the main process --------------------------------------------------------------------

    def publish(self, count: int, homes: Sequence[int] | None = None) -> None:
        """Tasks 0, 1, 2, ... of a new exchange; for each the worker that should do it, or -1, if any is for one."""
        if count > self.capacity:
            self.resize(max(count, 2 * self.capacity))
        with self._lock:
            self._order[:count] = np.arange(count)
            self._home[:count] = NOBODY if homes is None else homes
            self._taker[:] = NOBODY
            self._head[:] = 0, count, count, self.exchange

    def append(self, tasks: Sequence[int]) -> None:
        """More tasks, behind those that are left; they are numbered from the last one on."""
        count = max(tasks, default=-1) + 1
        if count > self.capacity:
            self.resize(max(count, 2 * self.capacity))
        with self._lock:
            begin, count, total, _ = self._head.tolist()
            self._taker[total:] = NOBODY
            self._head[2] = max([total, *(task + 1 for task in tasks)])
            self._put([*self._order[begin:count].tolist(), *tasks])

    def taken(self, worker: int, tasks: Sequence[int]) -> list[int]:
        """Which of these tasks has a worker taken?"""
        with self._lock:
            return [task for task in tasks if self._taker[task] == worker]

    def again(self, worker: int, tasks: Sequence[int]) -> None:
        """A worker is gone: what is left of these tasks is to be taken by the others, in this order.

        Args:
            worker: which.
            tasks: all that nobody has answered.
        """
        with self._lock:  # it may have died while it took some, and left the list as it was in between
            left = [task for task in tasks if self._taker[task] in (worker, NOBODY)]
            self._taker[left] = NOBODY
            self._put(left)
            self.note(worker, NOBODY)

    def _put(self, tasks: Sequence[int]) -> None:
        self._order[: len(tasks)] = tasks
        self._home[: len(tasks)] = NOBODY
        self._head[:2] = 0, len(tasks)

    def clear(self) -> None:
        """Nothing is left to take."""
        with self._lock:
            self._head[0] = self._head[1]

    def doing(self, worker: int) -> int:
        """Which task a worker does; -1: none."""
        return self._doing[worker]

    # --- a worker ----------------------------------------------------------------------------

    def take(self, worker: int, most: int, least: int = 1, *, window: int = WINDOW) -> list[int]:
        """The next tasks for this worker: such whose data it has come first, then the first that there are.

        Args:
            worker: which.
            most: how many at most.
            least: so many it takes even if that leaves less than a fair share for the others.
            window: how far ahead of the others it may look for clients whose data it has; 0: there is no data.
        """
        with self._lock:
            begin, count, total, exchange = self._head.tolist()
            if begin >= count or exchange != self.exchange:
                return []
            self.resize(total)  # to see those that came later
            left = count - begin
            most = min(most, max(least, -(-2 * left // (3 * self._workers))), left)  # leave something for the others
            at = self._mine(worker, begin, count, window)[:most] if window else []
            taken: list[int] = self._order[at or slice(begin, begin + most)].tolist()
            self._taker[taken] = worker
            if at and at[-1] - begin >= len(at):
                self._close_gaps(begin, at)
            self._head[0] = begin + len(taken)
            return taken

    def _mine(self, worker: int, begin: int, count: int, window: int) -> list[int]:
        """Where in the list, from its beginning on, tasks stand whose data this worker has."""
        end = min(begin + window, count)
        if self._home[begin:end].max() < 0:
            return []
        ahead, homes = self._order[begin:end].tolist(), self._home[begin:end].tolist()
        last = ahead[0] + window  # else the first may stay behind to the end
        return [begin + i for i, task in enumerate(ahead) if homes[i] == worker and task < last]

    def _close_gaps(self, begin: int, at: Sequence[int]) -> None:
        """Move what stands before the taken ones behind them, in its order."""
        end, gone = at[-1] + 1, {place - begin for place in at}
        for table in (self._order, self._home):
            rest = [it for i, it in enumerate(table[begin:end].tolist()) if i not in gone]
            table[end - len(rest) : end] = rest

    def note(self, worker: int, task: int) -> None:
        """This worker does that task now."""
        self._doing[worker] = task

    def close(self) -> None:
        """Give the memory back."""
        del self._doing, self._head, self._order, self._home, self._taker
        self._region.close()
        self._region.forget()
        self._lock.close()


def _size(workers: int, capacity: int) -> int:
    return _HEAD + 8 * workers + 8 * capacity


__all__ = ["NOBODY", "Board"]

"""Processes that help the main one with large arrays in shared memory.

Threads do so, too. But they need the interpreter for a moment between any two operations, and whoever finds it taken is
put to sleep and woken: two threads took 34 ms for what two processes do in 23 (an update of 100 MB each, two cores).
"""

from __future__ import annotations

import io
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import threading
from array import array
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple, final

import numpy as np

from umbel.simulation.claims import Claims
from umbel.simulation.member import surroundings
from umbel.simulation.region import Origin, Region, origin_of
from umbel.simulation.shared import Handle
from umbel.simulation.spawn import alive, die_with_parent, end_of, start, unblock_interrupt, uninterrupted
from umbel.simulation.waiting import Selector
from umbel.spread import Elementwise

assert sys.platform == "linux"  # elsewhere large arrays do not lie in shared memory

_MOST = 1 << 16  # bytes of a request
_FILES = 200  # of a request; Linux takes 253
_UNHEARD = 8  # requests that it may not have answered yet; one that is stopped answers none
_AT_ITS_END = 1.0  # seconds that it has to end by itself, so that it can be said how
_READY, _DONE = b"ready", b"done"
_BOOT = """\
import sys
sys.path[:] = {path!r}
from umbel.simulation.helper import run
run({number}, {count}, {connection}, {lifeline}, {claims})
"""


@final
class Request(NamedTuple):
    """Help with this.

    Attributes:
        number: of the work, see `Claims`.
        size, step: of the work, and of its parts.
        fresh: regions of which the files come with the request, by their number.
        closed: regions that will not be needed again.
        work: a packed `Elementwise`; empty: none, only regions were closed.
    """

    number: int
    size: int
    step: int
    fresh: Sequence[int]
    closed: Sequence[int]
    work: bytes

    def part(self, number: int) -> slice:
        """Of the work."""
        return slice(number * self.step, min((number + 1) * self.step, self.size))


@final
class Packed(NamedTuple):
    """A work whose arrays all lie in shared memory, and where they do."""

    data: bytes
    origins: Sequence[Origin]


def packed(work: Elementwise) -> Packed | None:
    """A work in words that a helper understands; None: an array is not where others see it, or there are too many."""
    origins: dict[int, Origin] = {}
    out = io.BytesIO()
    try:
        _Pickler(out, origins).dump(work)
    except pickle.PicklingError:
        return None
    small = len(origins) <= _FILES and 2 * len(out.getvalue()) <= _MOST
    return Packed(out.getvalue(), [*origins.values()]) if small else None


@final
class _Pickler(pickle.Pickler):
    def __init__(self, out: io.BytesIO, origins: dict[int, Origin]) -> None:
        super().__init__(out, protocol=5)
        self._origins = origins

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return None
        found = origin_of(value)
        if found is None or not found[0].is_open or not value.flags.c_contiguous:
            raise pickle.PicklingError("an array is not in shared memory")
        origin, offset = found
        self._origins[origin.number] = origin
        return origin.number, offset, value.size, value.dtype.str


@final
class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, regions: dict[int, Region]) -> None:
        super().__init__(io.BytesIO(data))
        self._regions = regions

    def persistent_load(self, place: Any) -> Any:
        number, offset, count, dtype = place
        region = self._regions[number]
        region.resize(offset + count * np.dtype(dtype).itemsize)
        return region.array(offset, count, dtype)


@final
class Helper:
    """One such process, as the main one sees it.

    Args:
        number: of the helper.
        count: how many there are.
        claims: who does what.
        path: where it finds modules.
    """

    def __init__(self, number: int, count: int, claims: Claims, path: Sequence[str]) -> None:
        self._number, self._claims = number, claims
        self._ready, self._unheard = False, 0
        self._known: dict[int, Origin] = {}
        with ExitStack() as opened:  # if one cannot be had, the others are closed
            self._socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            opened.callback(self._socket.close)
            opened.callback(its.close)
            lifeline, self._lifeline = os.pipe()
            opened.callback(os.close, lifeline)
            opened.callback(os.close, self._lifeline)
            self._selector = Selector()
            opened.pop_all()
        boot = _BOOT.format(
            path=[*path],
            number=number,
            count=count,
            connection=its.fileno(),
            lifeline=lifeline,
            claims=claims.handles,
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._ended: int | socket.socket = -1
        self._watcher: threading.Thread | None = None
        try:
            with uninterrupted():
                alive.add(self)
                self._process = start(
                    boot,
                    its,
                    (lifeline, self._lifeline),
                    files=[int(handle) for handle in claims.handles],
                    environment={**os.environ, **surroundings(1)},
                    streams={},
                )
                self._ended, self._watcher = end_of(self._process)
                self._selector.register(self._socket, selectors.EVENT_READ)
                self._selector.register(self._ended, selectors.EVENT_READ)
        except BaseException:  # Ctrl-C
            self.end()
            raise
        finally:
            its.close()
            os.close(lifeline)

    @property
    def is_ready(self) -> bool:
        """Has it started, and does it answer?

        Raises:
            ConnectionError: it is no more.
        """
        while self._hear(0.0):
            pass
        return self._ready and self._unheard < _UNHEARD

    def _hear(self, seconds: float | None = None) -> bool:
        """Wait until it says something, or for so many seconds. Did it?"""
        ready = [key.fileobj for key, _ in self._selector.select(seconds)]
        if not ready:
            return False
        said = self._socket.recv(64) if self._socket in ready else b""
        if not said:  # a process that outlives it may hold its end of the socket
            raise ConnectionResetError
        self._ready = True
        self._unheard -= said == _DONE
        return True

    def ask(self, number: int, work: Packed, parts: Sequence[slice]) -> None:
        """Let it take parts of a work, if it hears of it: whether it does makes no difference but to the time."""
        fresh = [origin for origin in work.origins if origin.number not in self._known]
        request = Request(
            number, parts[-1].stop, parts[0].stop, [origin.number for origin in fresh], self._closed(), work.data
        )
        self._send(request, fresh)

    def forget_closed(self) -> None:
        """Let it give back the memory of regions that this process has closed."""
        if closed := self._closed():
            self._send(Request(0, 0, 0, (), closed, b""))

    def _closed(self) -> list[int]:
        return [number for number, origin in self._known.items() if not origin.is_open]

    def _send(self, request: Request, fresh: Sequence[Origin] = ()) -> None:
        files = array("i", [int(origin.handle) for origin in fresh])
        data = pickle.dumps(request, protocol=5)
        try:
            self._socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)], socket.MSG_DONTWAIT)
        except OSError:  # it has not read what it was sent, or is no more, or too many files are under way
            return
        self._unheard += 1
        self._known.update({origin.number: origin for origin in fresh})
        for gone in request.closed:
            del self._known[gone]

    def finish(self) -> bool:
        """Wait until it does nothing any more. Did all that it did return True?

        Raises:
            ConnectionError: it is no more.
        """
        while self._claims.does(self._number):
            self._hear()
        return self._claims.all_true(self._number)

    def take_over(self, work: Elementwise, parts: Sequence[slice]) -> bool:
        """It is no more: do what it left. Did all that was done return True?"""
        rest = self._claims.take_over(self._number, work, parts)
        return rest and self._claims.all_true(self._number)

    def died(self) -> int:
        """It says that it is no more, or is about to be: how it ended."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_AT_ITS_END)
        self.end()
        return self._process.returncode

    def kill(self) -> None:
        """Let it do nothing any more."""
        if self._process is not None:
            self._process.kill()

    def end(self) -> None:
        """End the process now; again, if Ctrl-C came in between."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._watcher is not None:
            self._watcher.join()
        alive.discard(self)
        self._close()

    def _close(self) -> None:
        self._selector.close()
        self._socket.close()
        lifeline, self._lifeline = self._lifeline, -1
        ended, self._ended = self._ended, -1
        if lifeline >= 0:
            os.close(lifeline)
        if not isinstance(ended, int):
            ended.close()
        elif ended >= 0:
            os.close(ended)

    def forget_in_child(self) -> None:
        """A forked child of this process must not keep the helper alive."""
        self._close()
        if self._process is not None:
            self._process.returncode = 0  # it is not the child's to wait for


def run(number: int, count: int, connection: int, lifeline: int, claims: tuple[Handle, Handle]) -> None:
    """The life of a helper.

    Args:
        number: its own.
        count: how many helpers there are.
        connection: the socket to the main process.
        lifeline: a pipe that ends with the main process.
        claims: handles of the `Claims`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends us
    unblock_interrupt()
    die_with_parent(lifeline)
    mine = Claims(count, claims)
    regions: dict[int, Region] = {}
    with socket.socket(fileno=connection) as main, suppress(ConnectionError):
        main.send(_READY)
        while True:
            data, files, _, _ = socket.recv_fds(main, _MOST, _FILES)
            if not data:
                return
            request: Request = pickle.loads(data)  # noqa: S301  # from our own parent
            for closed in request.closed:
                regions.pop(closed).close()
            regions.update({n: Region(1, file) for n, file in zip(request.fresh, files, strict=True)})
            if request.work:
                work: Elementwise = _Unpickler(request.work, regions).load()
                while (part := mine.take(request.number, number)) is not None:
                    mine.do(number, work, request.part(part))
                del work  # it holds memory that may be given back
            main.send(_DONE)


__all__ = ["Helper", "Packed", "packed", "run"]

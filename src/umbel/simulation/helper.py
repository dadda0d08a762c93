"""Processes that help the main one with large arrays in shared memory.

Threads do so, too. But they need the interpreter for a moment between any two operations, and whoever finds it taken is
put to sleep and woken: two threads took 34 ms for what two processes do in 23 (an update of 100 MB each, two cores).
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import socket
import sys
import weakref
from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple, final

import numpy as np

from umbel.simulation.claims import Claims
from umbel.simulation.member import surroundings
from umbel.simulation.region import Origin, Region, origin_of
from umbel.simulation.shared import Handle
from umbel.simulation.spawn import die_with_parent, start, unblock_interrupt, uninterrupted
from umbel.spread import Elementwise

assert sys.platform == "linux"  # elsewhere large arrays do not lie in shared memory

_MOST = 1 << 16  # bytes of a request
_FILES = 200  # of a request; Linux takes 253
_UNHEARD = 8  # requests that it may not have answered yet; one that is stopped answers none
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
        work: a packed `Elementwise`.
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
    """

    def __init__(self, number: int, count: int, claims: Claims) -> None:
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
            boot = _BOOT.format(
                path=[*sys.path],
                number=number,
                count=count,
                connection=its.fileno(),
                lifeline=lifeline,
                claims=claims.handles,
            )
            with uninterrupted():
                self._process = start(
                    boot,
                    its,
                    (lifeline, self._lifeline),
                    files=[int(handle) for handle in claims.handles],
                    environment={**os.environ, **surroundings(1)},
                    streams={},
                )
                _alive.add(self)
            opened.pop_all()
            its.close()
            os.close(lifeline)

    @property
    def is_ready(self) -> bool:
        """Has it started, and does it answer?

        Raises:
            ConnectionError: it is no more.
        """
        with suppress(BlockingIOError):
            while self._hear(socket.MSG_DONTWAIT):
                pass
        return self._ready and self._unheard < _UNHEARD

    def _hear(self, flags: int = 0) -> bool:
        if not (said := self._socket.recv(64, flags)):
            raise ConnectionResetError
        self._ready = True
        self._unheard -= said == _DONE
        return True

    def ask(self, number: int, work: Packed, parts: Sequence[slice]) -> None:
        """Let it take parts of a work.

        Raises:
            ConnectionError: it is no more.
        """
        closed = [number for number, origin in self._known.items() if not origin.is_open]
        for gone in closed:
            del self._known[gone]
        fresh = [origin for origin in work.origins if origin.number not in self._known]
        self._known.update({origin.number: origin for origin in fresh})
        request = Request(number, parts[-1].stop, parts[0].stop, [origin.number for origin in fresh], closed, work.data)
        self._unheard += 1
        socket.send_fds(self._socket, [pickle.dumps(request, protocol=5)], [int(origin.handle) for origin in fresh])

    def finish(self, mine: Collection[int]) -> bool:
        """Wait until it does nothing any more. Did all that it did return True?

        Raises:
            ConnectionError: it is no more.
        """
        while self._claims.doing(self._number, mine) is not None:
            self._hear()
        return self._claims.all_true(self._number)

    def take_over(self, work: Elementwise, parts: Sequence[slice], mine: Collection[int]) -> bool:
        """It is no more: do what it left. Did all that was done return True?"""
        rest = self._claims.take_over(self._number, work, parts, mine)
        return rest and self._claims.all_true(self._number)

    def end(self) -> int:
        """End the process now; how it ended."""
        self._process.kill()
        status = self._process.wait()
        _alive.discard(self)
        self._close()
        return status

    def _close(self) -> None:
        self._socket.close()
        os.close(self._lifeline)

    def forget_in_child(self) -> None:
        """A forked child of this process must not keep the helper alive."""
        self._close()
        self._process.returncode = 0  # it is not the child's to wait for


_alive: weakref.WeakSet[Helper] = weakref.WeakSet()


def _after_fork() -> None:
    for helper in list(_alive):
        helper.forget_in_child()
    _alive.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


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
            work: Elementwise = _Unpickler(request.work, regions).load()
            while (part := mine.take(request.number, number)) is not None:
                mine.do(number, work, request.part(part))
            main.send(_DONE)


__all__ = ["Helper", "Packed", "packed", "run"]

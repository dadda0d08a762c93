"""One worker process, as the main process sees it."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, final

from umbel.simulation.channel import Channel
from umbel.simulation.inbox import Inbox
from umbel.simulation.messages import Hello
from umbel.simulation.nameless import nameless_file
from umbel.simulation.region import Region
from umbel.simulation.spawn import alive, end_of, inherited, pair, start, uninterrupted

_LIMITS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "BLIS_NUM_THREADS",
)
# For glibc; elsewhere they mean nothing. By default it gives memory back to the system as soon as some 2 MB on top of
# the heap are free: a small CNN got 100,000 new pages in a round, and took a tenth longer.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
_BOOT = """\
import os, sys, traceback
sys.path[:] = {path!r}
crash = {crash}
try:
    from umbel.simulation.worker import run
    run({connection}, {lifeline}, crash)
except BaseException:
    os.write(crash, traceback.format_exc().encode(errors="replace"))
    os._exit(1)
"""


@final
@dataclass(frozen=True, slots=True)
class Died:
    """A worker is no more.

    Attributes:
        status: how its process ended, as `subprocess` says it.
        traceback: what it could still say, or "".
        hello: had it said anything before?
    """

    status: int
    traceback: str
    hello: bool


@final
class Member:
    """One worker process.

    Args:
        number: of the worker.
        hello: what it hears first.
        updates: the memory for its updates; the member's from now on.
        threads: how many it computes with.
        files: where its "stdout" and "stderr" go, if not where ours do.

    Attributes:
        inbox: its updates.
        device: where it computes, as far as it has said.
        resident: bytes of memory that it takes, as far as it has said.
    """

    def __init__(self, number: int, hello: Hello, updates: Region, *, threads: int, files: Mapping[str, int]) -> None:
        self.number, self.inbox = number, Inbox(updates)
        self.device, self.resident = "", 0
        self._spoke, self._scratch = False, hello.scratch
        with ExitStack() as opened:  # if one cannot be had, the others are closed
            opened.callback(updates.close)
            mine, its = pair()
            opened.callback(mine.close)
            opened.callback(its.close)
            lifeline, self._lifeline = os.pipe()
            opened.callback(os.close, lifeline)
            opened.callback(os.close, self._lifeline)
            self._crash = nameless_file("crash")
            opened.pop_all()
        self.channel = Channel(mine)
        boot = _BOOT.format(
            path=hello.search.path, connection=its.fileno(), lifeline=inherited(lifeline), crash=inherited(self._crash)
        )
        handed = [self._crash, *(h for h in (*hello.board, hello.broadcast, hello.updates) if isinstance(h, int))]
        variables = {**os.environ, **surroundings(threads)} | ({"PYTHONIOENCODING": "utf-8"} if files else {})
        try:
            with uninterrupted():
                self._process = start(
                    boot, its, (lifeline, self._lifeline), files=handed, environment=variables, streams=files
                )
                self.ended, self._watcher = end_of(self._process)
                alive.add(self)
            self.send(hello)
        except BaseException:  # Ctrl-C
            if self in alive:
                self.kill()
            else:
                self._close()
                updates.close()
            raise
        finally:
            its.close()
            os.close(lifeline)

    def send(self, message: Any) -> None:
        """Tell the worker something; one that has died does not hear it."""
        self.channel.send(pickle.dumps(message, protocol=5))

    def receive(self) -> Sequence[Any]:
        """What the worker has said since."""
        said = [pickle.loads(data) for data in self.channel.receive()]  # noqa: S301  # from our own child
        self._spoke = self._spoke or bool(said)
        if self.channel.at_end:  # its code has closed what it speaks through, if it is not gone already
            self._process.kill()
        return said

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def died(self) -> Died:
        """How the process ended."""
        status = self._process.wait()
        size = os.lseek(self._crash, 0, os.SEEK_END)
        os.lseek(self._crash, 0, os.SEEK_SET)
        return Died(status, os.read(self._crash, size).decode(errors="replace"), self._spoke)

    def dismiss(self) -> None:
        """Say that there is nothing more to do; then the process ends by itself."""
        self.channel.close()

    def kill(self) -> None:
        """End the process now, and give everything back."""
        if self in alive:
            self._process.kill()
            self._process.wait()
            self.forget()

    def forget(self) -> None:
        """Close what this process holds of it; its updates stay as long as anyone looks at them."""
        alive.discard(self)
        if self._watcher is not None:
            self._watcher.join()
        self._close()
        if isinstance(self.ended, int):
            os.close(self.ended)
        else:
            self.ended.close()
        self.inbox.region.close()
        with suppress(OSError):  # it is made when it is needed; what user code started may still write there
            shutil.rmtree(self._scratch)

    def _close(self) -> None:
        self.channel.close()
        os.close(self._lifeline)
        os.close(self._crash)

    def forget_in_child(self) -> None:
        """A forked child of this process must not keep the worker alive."""
        os.close(self._lifeline)
        self.channel.close()
        self._process.returncode = 0  # it is not the child's to wait for


def surroundings(threads: int) -> dict[str, str]:
    """Variables of the environment in which a worker starts: what libraries read when they are loaded, and once.

    Args:
        threads: how many it computes with.
    """
    return dict.fromkeys(_LIMITS, str(threads)) | {name: os.environ.get(name, v) for name, v in _MALLOC.items()}


__all__ = ["Died", "Member", "surroundings"]

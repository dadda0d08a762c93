"""Programs that are started, read and ended, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds
TICK = os.sysconf("SC_CLK_TCK")
OWN = ("Anonymous:", "Shmem:")


class Program:
    """A process whose output is read as it comes.

    Args:
        command: what to run.
        more: variables of its environment.

    Attributes:
        lines: what it has printed, with the time of each line, in seconds since 1970.
        started: when it was started.
    """

    def __init__(self, command: Sequence[str | Path], more: Mapping[str, str] | None = None) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self.started = time.time()
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**kept, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **(more or {})},
            cwd=ROOT,
        )
        self.lines: list[tuple[float, str]] = []
        self._came = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._came:
                    self.lines.append((time.time(), line.rstrip("\n")))
                    self._came.notify_all()
        with self._came:
            self._came.notify_all()

    def wait_for(self, text: str, seconds: float = PATIENCE, *, since: int = 0) -> tuple[float, str]:
        """The first line, from this one on, in which a text stands, and when it came."""
        until = time.monotonic() + seconds
        seen = since
        with self._came:
            while True:
                for line in self.lines[seen:]:
                    if text in line[1]:
                        return line
                seen = len(self.lines)
                left = until - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self._reader.is_alive()):
                    raise RuntimeError(f"process {self.pid}: no {text!r} in {seconds:g} s; it said:\n{self.text}")
                self._came.wait(min(left, 0.5))

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines[-40:])

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it, with force if it must be."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait(10)
        self._reader.join(10)


def python(*arguments: str | Path) -> list[str | Path]:
    """A program of this folder, by its module's name."""
    return [sys.executable, "-m", *arguments]


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait for a condition.

    Raises:
        RuntimeError: it did not come about.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """A process's children, and theirs."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *children(int(child))]
    return found


def cpu_seconds(pid: int) -> float:
    """What a process has computed, in user and system mode; to a hundredth of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid: int) -> int:
    """Bytes that are a process's own, or shared memory; files that it maps are apart."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(OWN))

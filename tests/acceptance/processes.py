"""What tests of worker processes share: who is alive, what was left behind, and waiting for a condition."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

MARK = "UMBEL_TEST_MARK"
PATIENCE = 60.0  # seconds after which a condition is given up; a loaded machine is slow


def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.01)


def needs_proc() -> None:
    if not Path("/proc/self/environ").exists():
        pytest.skip("needs procfs: who is alive stands there")


def alive(mark: str) -> list[int]:
    """The processes with this mark in their environment, which their children inherit."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdigit() and wanted in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
        except OSError:
            continue
    return found


def children(pid: int = 0) -> list[int]:
    """The processes that a process has started and that are not dead."""
    pid, found = pid or os.getpid(), []
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdigit():
                _, _, rest = (place / "stat").read_text().rpartition(") ")
                state, parent = rest.split()[:2]
                if int(parent) == pid and state != "Z":
                    found.append(int(place.name))
        except OSError:
            continue
    return found


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def shared_names() -> set[str]:
    """What lies in /dev/shm that may be ours."""
    place = Path("/dev/shm")
    return {p.name for p in place.iterdir() if "umbel" in p.name} if place.is_dir() else set()

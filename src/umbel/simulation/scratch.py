"""Where ``ctx.scratch`` lies in a worker process: in a directory that is gone when the run is, however that ends."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import final

if sys.platform == "win32":
    # It waits for the worker to end, which ends with the main process: what is open there cannot be removed before.
    _SWEEP = """\
import shutil, sys, time
sys.stdin.read()
for seconds in (0, 1, 10):
    time.sleep(seconds)
    shutil.rmtree(sys.argv[1], ignore_errors=True)
"""

    def _sweeper(path: str, lifeline: int) -> subprocess.Popen[bytes]:
        del lifeline
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _SWEEP, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,  # Ctrl-C does not end it
        )

else:
    # It waits for the main process to end or to close the pipe. A worker that is killed writes no more; the second try
    # is for one that was being killed while the first was under way.
    _SWEEP = 'read -r _; rm -rf -- "$0" || { sleep 1; rm -rf -- "$0"; }'

    def _sweeper(path: str, lifeline: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["/bin/sh", "-c", _SWEEP, path],
            stdin=lifeline,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C does not end it
        )


@final
class Scratch:
    """The directory, made when the first task asks for it.

    Args:
        path: where it is to be.
        lifeline: a pipe that ends with the main process; a file descriptor.
    """

    def __init__(self, path: str, lifeline: int) -> None:
        self._path, self._lifeline = path, lifeline
        self._sweeper: subprocess.Popen[bytes] | None = None
        self._made = False

    def directory(self) -> str:
        """Its path."""
        if not self._made:
            with contextlib.suppress(OSError):  # without it, what a killed run leaves behind stays
                self._sweeper = _sweeper(self._path, self._lifeline)
            os.makedirs(self._path, mode=0o700, exist_ok=True)
            self._made = True
        return self._path


__all__ = ["Scratch"]

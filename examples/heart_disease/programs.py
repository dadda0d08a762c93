"""A server and nodes as programs of their own on this machine: started, watched, killed, and never left behind."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE = 60.0  # seconds in which a program must have said what it is waited for
GRACE = 10.0  # seconds that programs have to end when they are asked to
TAIL = 15  # lines of a log that are shown when something went wrong

# The umbel command, which also ends when this program does, however that ends: then nobody holds its standard input.
UMBEL = (
    "import os, threading\n"
    "threading.Thread(target=lambda: os.read(0, 1) or os._exit(1), daemon=True).start()\n"
    "from umbel.cli import main\n"
    "main()"
)


class Broken(Exception):
    """A program did not do what it should; the message shows the end of its log."""


class Program:
    """One program.

    Args:
        log: the file that what it prints is appended to.
        arguments: of the umbel command.
    """

    def __init__(self, log: Path, *arguments: str) -> None:
        self.log, self._begin = log, log.stat().st_size if log.exists() else 0
        self.expected = True  # to be alive
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", UMBEL, *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this program alone, which then ends the others
            )
        self.pid = self._process.pid

    @property
    def printed(self) -> str:
        return self.log.read_bytes()[self._begin :].decode(errors="replace")

    def check(self) -> None:
        """It must be alive."""
        if self.expected and self._process.poll() is not None:
            raise self.broken("has ended on its own")

    def broken(self, what: str) -> Broken:
        tail = "\n".join(f"    {line}" for line in self.printed.splitlines()[-TAIL:])
        return Broken(f"{self.log.stem} {what}. The end of {self.log}:\n{tail}")

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until this stands in what it has printed."""
        end = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.printed, flags=re.MULTILINE)):
            self.check()
            if time.monotonic() > end:
                raise self.broken(f"has not printed {pattern!r} in {PATIENCE:g} s")
            time.sleep(0.02)
        return found

    def kill(self) -> None:
        """What kill -9 does."""
        self.expected = False
        self._process.kill()
        self._process.wait()
        self._close()

    def ask_to_end(self) -> None:
        self.expected = False
        self._process.terminate()

    def end(self, until: float) -> None:
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
        self._close()

    def _close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()


class Programs:
    """All programs in one directory; a context manager that leaves none behind.

    Args:
        directory: of their logs.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._all: list[Program] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for program in self._all:
            program.ask_to_end()
        until = time.monotonic() + GRACE
        for program in self._all:
            program.end(until)

    def start(self, name: str, *arguments: str) -> Program:
        """Start `umbel ARGUMENTS`, with a log of this name."""
        program = Program(self._directory / f"{name}.log", *arguments)
        self._all.append(program)
        return program

    def check(self) -> None:
        """All must be alive but those that were killed."""
        for program in self._all:
            program.check()

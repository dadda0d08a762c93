"""Servers and nodes as programs of their own, over TLS, as the command line starts them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.acceptance.processes import PATIENCE, until
from umbel.apps.new import new_project

COMMAND = "from umbel.cli import main; main()"
AN_HOUR_AHEAD = f"import time; real = time.time; time.time = lambda: real() + 3600; {COMMAND}"


def environment(home: Path) -> dict[str, str]:
    """The variables of a person whose home directory this is."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {**kept, "HOME": str(home), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


class Program:
    """A command that runs; its output is read as it comes."""

    def __init__(self, home: Path, *arguments: str, program: str = COMMAND) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(home),
            cwd=home,
        )
        self.output: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.output.append(line.rstrip("\n"))

    @property
    def text(self) -> str:
        return "\n".join(self.output)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until a pattern stands in the output."""
        found: list[re.Match[str]] = []

        def there() -> bool:
            match = re.search(pattern, self.text)
            found.extend([match] if match else [])
            assert match or self.process.poll() is None or self._reader.is_alive(), f"it ended:\n{self.text}"
            return match is not None

        until(there, f"{pattern!r} in\n{self.text}\n")
        return found[0]

    def ended(self) -> int:
        """Wait until it ends; gives the exit status."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def close(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.ended()


class Federation:
    """A server, its nodes, and a person who has logged in.

    Args:
        root: where all lies.
        home: of the person.
        code: is written behind the app's own; then the server is started with the app.
    """

    def __init__(self, root: Path, home: Path, code: str = "") -> None:
        self.root, self.home, self._code = root, home, code
        self.package = f"fed{uuid.uuid4().hex[:8]}"  # each is imported once in a process
        self.app = root / self.package
        new_project(self.app)
        with next(self.app.glob("**/app.py")).open("a") as file:
            file.write(code)
        self.ticket = self.token = ""
        self.port = 0
        self.server: Program
        self._exit = ExitStack()
        self.start()

    def start(self) -> None:
        """Start the server, for the first time or again at the same port."""
        self.server = Program(
            self.home,
            *("server", "--dir", str(self.root / "server"), "--host", "127.0.0.1", "--port", str(self.port)),
            *("--pages", "", "--json", *(("--app", str(self.app)) if self._code else ())),
        )
        ready = json.loads(self.server.wait_for(r'\{"event": "ready".*')[0])
        self.port = ready["port"]
        if ready["ticket"]:
            self.ticket, self.token = ready["ticket"], ready["token"]
            self("login", self.token)

    def node(self, name: str, *arguments: str, program: str = COMMAND, app: Path | None = None) -> Program:
        """Start a node, and wait until it is connected."""
        started = self._exit.enter_context(self.program(*self.node_command(name, *arguments, app=app), program=program))
        started.wait_for("connected: ")
        self.server.wait_for(rf"node-connected.*\b{re.escape(name)}\b")  # only then is it asked
        return started

    def node_command(self, name: str, *arguments: str, app: Path | None = None) -> list[str]:
        return ["node", self.ticket, "--name", name, "--app", str(app or self.app), *arguments]

    @contextmanager
    def program(self, *arguments: str, program: str = COMMAND) -> Iterator[Program]:
        started = Program(self.home, *arguments, program=program)
        try:
            yield started
        finally:
            started.close()

    def __call__(
        self, *arguments: str, status: int | None = 0, program: str = COMMAND
    ) -> subprocess.CompletedProcess[str]:
        """Do a command to its end; a status that is not this one is a failure."""
        return command(self.home, *arguments, status=status, program=program)

    def records(self, *arguments: str) -> list[dict[str, Any]]:
        """What a command prints as JSON."""
        return [json.loads(line) for line in self(*arguments, "--json").stdout.splitlines()]

    def close(self) -> None:
        self._exit.close()
        self.server.close()


def command(
    home: Path, *arguments: str, status: int | None = 0, program: str = COMMAND
) -> subprocess.CompletedProcess[str]:
    """Do a command to its end."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=environment(home),
        cwd=home,
        timeout=PATIENCE,
    )
    assert status is None or done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def federation(root: Path, code: str = "") -> Federation:
    """A server that runs, and a home for who uses it; see `Federation` for the code."""
    home = root / "home"
    home.mkdir()
    return Federation(root, home, code)

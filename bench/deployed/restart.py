"""D5: how soon a server that was killed has work at its nodes again."""

from __future__ import annotations

import signal
import statistics
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.deployed.federation import Federation, Place
from bench.deployed.programs import until
from bench.deployed.rounds import NODES, TINY
from bench.figures import Figure

KILLS, BETWEEN = 3, 5  # how often, and after so many rounds
FOREVER = 1_000_000  # rounds


def restarts(directory: Path) -> Iterator[Figure]:
    """Kill the server in the middle of a run, start it, and wait for the first task."""
    seconds = []
    with Federation(Place(directory)) as federation:
        for name in NODES:
            federation.node(name)
        run = Beside(federation)
        run.start()
        for _ in range(KILLS):
            run.go_on(BETWEEN)
            federation.server.end(signal.SIGKILL)
            seen = {name: len(node.lines) for name, node in federation.nodes.items()}
            federation.start()
            came = [
                node.wait_for('"event": "task-begins"', since=seen[name])[0] for name, node in federation.nodes.items()
            ]
            seconds.append(min(came) - federation.server.started)
    spread = f"{KILLS} kills, {min(seconds):.2f} to {max(seconds):.2f} s"
    yield Figure(figure="D5 killed to first task", value=statistics.median(seconds), unit="s", budget=2, detail=spread)


class Beside(threading.Thread):
    """A run that goes on beside until its server is gone for good."""

    def __init__(self, federation: Federation) -> None:
        super().__init__(daemon=True)
        self._federation, self._rounds, self._error = federation, 0, ""

    def run(self) -> None:
        """Follow it."""
        try:
            self._federation.run(TINY, rounds=FOREVER, evaluate=True, heard=self._heard)
        except Exception as error:  # noqa: BLE001  # who waits for rounds says it
            self._error = str(error)

    def _heard(self, event: Any) -> None:
        self._rounds += event.kind == "round"

    def go_on(self, rounds: int) -> None:
        """Wait for so many rounds more."""
        until_then = self._rounds + rounds

        def there() -> bool:
            if self._error:
                raise RuntimeError(self._error)
            return self._rounds >= until_then

        until(there, f"round {until_then}")

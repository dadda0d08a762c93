"""D3: what the server takes in memory while many nodes send it large updates."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.deployed.federation import Federation, Place
from bench.deployed.programs import memory
from bench.figures import Figure

NODES = 20
NUMBERS = 25_000_000  # float32: 100 MB
MODEL = 4 * NUMBERS
OPEN, BASE = 16e6, 150e6  # bytes for each upload, and for the rest


class Watch(threading.Thread):
    """Looks at a server's memory and at its open uploads, as often as it can be."""

    def __init__(self, pid: int, incoming: Path) -> None:
        super().__init__(daemon=True)
        self._pid, self._incoming, self._ended = pid, incoming, threading.Event()
        self.most, self.open, self.most_while_open = 0, 0, 0

    def run(self) -> None:
        """Look until it is stopped."""
        while not self._ended.wait(0.02):
            taken, there = memory(self._pid), len(list(self._incoming.iterdir()))
            self.most, self.open = max(self.most, taken), max(self.open, there)
            if there:
                self.most_while_open = max(self.most_while_open, taken)

    def stop(self) -> None:
        """No more."""
        self._ended.set()
        self.join()


def uploads(directory: Path, nodes: int = NODES) -> Iterator[Figure]:
    """Measure the server's own and shared memory while nodes upload at once."""
    with Federation(Place(directory)) as federation:
        meeting = federation.directory / "meeting"
        meeting.mkdir()
        site = federation.directory / "site.toml"
        site.write_text(f'meet = "{meeting}"\nof = {nodes}\n')
        names = [f"node{i:02d}" for i in range(nodes)]
        for name in names:
            federation.node(name, "--site", site, wait=False)
        for name in names:
            federation.connected(name)
        before = memory(federation.server.pid)
        watch = Watch(federation.server.pid, federation.directory / "server" / "incoming")
        watch.start()
        federation.run({"values": np.zeros(NUMBERS, np.float32)}, rounds=1, evaluate=False)
        watch.stop()
    budget = (2 * MODEL + nodes * OPEN + BASE) / 1e6
    yield Figure(figure="D3 server before", value=before / 1e6, unit="MB")
    yield Figure(figure="D3 uploads at once", value=watch.open, unit="uploads", detail=f"of {nodes} nodes, 100 MB each")
    yield Figure(figure="D3 server, uploads open", value=watch.most_while_open / 1e6, unit="MB", budget=budget)
    yield Figure(figure="D3 server, the whole round", value=watch.most / 1e6, unit="MB", budget=budget)

"""D2 and D6: a large model to a node and an update back; how fast, and what it costs the processors."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.deployed.disk import write_seconds
from bench.deployed.federation import Federation, Place
from bench.deployed.programs import children, cpu_seconds
from bench.deployed.stream import Moved, bare_stream, fastest
from bench.figures import Figure

ARRAYS, NUMBERS = 16, 6_250_000  # float32: 400 MB in all
SIZE = 4 * ARRAYS * NUMBERS
ROUNDS = 4  # the first is not counted
NODE = "berlin"
SHARE = 0.6  # of what the slower of the yardsticks does
CPU = 1.5  # times the bare stream's


@dataclass(frozen=True, slots=True)
class Way:
    """One round's bytes, there and back.

    Attributes:
        down, up: seconds, without what the handler took.
        between: seconds between the answer before and this task: the mean, the new model, its digest and its file.
        cpu: seconds of the server's, the node's and its child's processors meanwhile, without the handler's.
        rest: such seconds between two tasks.
    """

    down: float
    up: float
    between: float
    cpu: float
    rest: float


class Meter(threading.Thread):
    """Reads what processes compute, ten times a second."""

    def __init__(self, pids: Sequence[int]) -> None:
        super().__init__(daemon=True)
        self._pids, self._ended = pids, threading.Event()
        self.times: list[float] = []
        self.spent: list[float] = []

    def run(self) -> None:
        """Read until it is stopped."""
        while not self._ended.wait(0.1):
            with suppress(OSError):  # one has ended
                spent = sum(map(cpu_seconds, self._pids))
                self.times.append(time.time())
                self.spent.append(spent)

    def stop(self) -> None:
        """No more."""
        self._ended.set()
        self.join()

    def between(self, begin: float, end: float) -> float:
        """CPU seconds between two times."""
        first, last = np.interp([begin, end], self.times, self.spent)
        return float(last - first)


def model_ways(directory: Path) -> Iterator[Figure]:
    """Measure a model down and an update up, beside a bare stream and a bare file."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        streams, written = [], []
        for turn in range(3):  # the first before, the others after
            streams.append(bare_stream(Path(place), SIZE))
            written.append(write_seconds(directory, SIZE))
            if turn == 0:
                ways = deployed(directory)
    disk = statistics.median(written)
    yield _rate("D2 write + fsync", disk)
    for way in ("down", "up"):
        stream, kind = fastest(streams, way)
        yield _rate(f"D2 bare stream {way}", stream, detail=f"grpc {kind}, 1 MiB messages, TLS")
        ours = statistics.median(getattr(one, way) for one in ways)
        slower = max(stream, disk)
        yield _rate(f"D2 {way}", ours, detail=f"{100 * slower / ours:.0f} % of the slower yardstick")
        yield Figure(figure=f"D2 time {way} / slower", value=ours / slower, unit="x", budget=round(1 / SHARE, 2))
    between = statistics.median(one.between for one in ways)
    yield Figure(
        figure="D2 between two tasks", value=between, unit="s", detail="in neither way: the mean, the new model"
    )
    yield from _processors(ways, streams)


def _rate(figure: str, seconds: float, detail: str = "") -> Figure:
    return Figure(figure=figure, value=SIZE / 1e6 / seconds, unit="MB/s", detail=detail)


def _processors(ways: Sequence[Way], streams: Sequence[dict[str, dict[str, Moved]]]) -> Iterator[Figure]:
    gigabytes = 2 * SIZE / 1e9
    _, kind = fastest(streams, "down")
    bare = sum(statistics.median(found[kind][way].cpu for found in streams) for way in ("down", "up")) / gigabytes
    ours = statistics.median(one.cpu for one in ways) / gigabytes
    rest = statistics.median(one.rest for one in ways) / gigabytes
    yield Figure(figure="D6 bare stream", value=bare, unit="CPU s/GB", detail=f"grpc {kind}, both processes")
    yield Figure(figure="D6 server + node", value=ours, unit="CPU s/GB")
    yield Figure(figure="D6 CPU / bare stream", value=ours / bare, unit="x", budget=CPU)
    yield Figure(figure="D6 between two tasks", value=rest, unit="CPU s/GB", detail="the mean, the new model, its file")


def deployed(directory: Path) -> list[Way]:
    """The rounds that count."""
    opened: list[float] = []

    def heard(event: Any) -> None:
        if event.kind == "exchange":
            opened.append(event.time)

    model = {f"layer{i}": np.full(NUMBERS, i, np.float32) for i in range(ARRAYS)}
    with Federation(Place(directory)) as federation:
        node = federation.node(NODE)
        # one round of ten floats first, so that the child is there
        federation.run({"values": np.zeros(10, np.float32)}, rounds=1, evaluate=False)
        meter = Meter([federation.server.pid, node.pid, *children(node.pid)])
        meter.start()
        result = federation.run(model, rounds=ROUNDS, evaluate=False, heard=heard)
        meter.stop()
        lines = federation.journal(NODE)
    asked = [line["time"] for line in lines if line["event"] == "asked"][-ROUNDS:]
    delivered = [line["time"] for line in lines if line["event"] == "delivered"][-ROUNDS:]
    ways = []
    for i in range(1, ROUNDS):
        row = result.history[i]
        began, ended = float(row["began"]), float(row["ended"])
        cpu = meter.between(asked[i], began) + meter.between(ended, delivered[i])
        ways.append(
            Way(
                down=began - asked[i],
                up=delivered[i] - ended,
                between=asked[i] - delivered[i - 1],
                cpu=cpu,
                rest=meter.between(delivered[i - 1], asked[i]),
            )
        )
    return ways

"""D1: what a round takes, of two nodes that answer at once; and how often it waits for the disk."""

from __future__ import annotations

import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.deployed.disk import commit_seconds
from bench.deployed.federation import Federation, Place
from bench.deployed.programs import python
from bench.figures import Figure

WARM, ROUNDS = 10, 60  # rounds before those that count, and those
NODES = ("berlin", "lyon")
QUICK = 0.5e-3  # seconds of a commit with which the budget holds
TINY = {"values": np.zeros(10, np.float32)}


def round_times(directory: Path) -> Iterator[Figure]:
    """Measure train and evaluate rounds of ten floats."""
    fast, note = quick_directory(directory)
    yield Figure(figure="D1 a FULL commit", value=1e3 * commit_seconds(fast), unit="ms", detail=note)
    with Federation(Place(fast)) as federation:
        times = committed(federation)
    seconds = [after - before for before, after in zip(times[WARM - 1 :], times[WARM:], strict=False)]
    spread = f"{len(seconds)} rounds, from {1e3 * min(seconds):.1f} to {1e3 * max(seconds):.1f} ms"
    yield Figure(
        figure="D1 train + evaluate", value=1e3 * statistics.median(seconds), unit="ms", budget=20, detail=spread
    )


def quick_directory(directory: Path) -> tuple[Path, str]:
    """A directory whose disk commits quickly enough, and what is to be said about it."""
    usual = commit_seconds(directory)
    if usual <= QUICK or not Path("/dev/shm").is_dir():
        return directory, f"in {directory}"
    return Path("/dev/shm"), f"in /dev/shm, which is memory: in {directory} it takes {1e3 * usual:.2f} ms"


def committed(federation: Federation) -> list[float]:
    """When each round was committed, in seconds since 1970."""
    times: list[float] = []

    def heard(event: Any) -> None:
        if event.kind == "round":
            times.append(event.time)

    for name in NODES:
        federation.node(name)
    federation.run(TINY, rounds=WARM + ROUNDS, evaluate=True, heard=heard)
    return times


def commits(directory: Path) -> Iterator[Figure]:
    """Count commits and syncs, in another run: to write them down takes time."""
    with tempfile.TemporaryDirectory(dir=directory) as notes:

        def command(who: str) -> list[str | Path]:
            return python("bench.deployed.watched", Path(notes, who))

        with Federation(Place(directory, command)) as federation:
            times = committed(federation)
        begin, end = times[WARM], times[-1]
        exchanges = 2 * (len(times) - 1 - WARM)
        server, *nodes = (counted(Path(notes, who), begin, end) for who in ("server", *NODES))
    mine, most = server["full"] / exchanges, max(node["full"] for node in nodes) / exchanges
    beside = "those of all that wait for the disk, on the path to the next exchange or beside it"
    yield Figure(
        figure="D1 commits of an exchange",
        value=mine + most,
        unit="commits",
        budget=6,
        detail=f"{mine:.2f} of the server and {most:.2f} of a node: {beside}",
    )
    syncs = sum(one["sync"] for one in (server, *nodes))
    yield Figure(
        figure="D1 file syncs of an exchange",
        value=syncs / exchanges,
        unit="syncs",
        budget=0,
        detail=f"{syncs} in {exchanges} exchanges, by our own code",
    )


def counted(path: Path, begin: float, end: float) -> Counter[str]:
    """What was done in a time, by kind."""
    lines = (line.split() for line in path.read_text().splitlines())
    return Counter(what for when, what in lines if begin <= float(when) < end)

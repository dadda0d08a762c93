"""What the disk does by itself: a durable commit, and writing many bytes until they are on it."""

from __future__ import annotations

import os
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

COMMITS = 200
PIECE = 1 << 20  # bytes


def commit_seconds(directory: Path) -> float:
    """The median time of a commit that SQLite waits for (WAL, FULL)."""
    with (
        tempfile.TemporaryDirectory(dir=directory) as place,
        closing(sqlite3.connect(f"{place}/database", isolation_level=None)) as database,
    ):
        database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (x TEXT)")
        seconds = []
        for _ in range(COMMITS):
            begin = time.perf_counter()
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO t VALUES (?)", ("x" * 200,))
            database.execute("COMMIT")
            seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def write_seconds(directory: Path, size: int) -> float:
    """How long it takes to write so many bytes and sync them."""
    piece = os.urandom(PIECE)
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        begin = time.perf_counter()
        for at in range(0, size, PIECE):
            os.write(file.fileno(), piece[: size - at])
        os.fsync(file.fileno())
        return time.perf_counter() - begin

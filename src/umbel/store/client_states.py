"""Clients' states in SQLite, versioned by the number of the exchange that gave them.

A version counts when the exchange with its number is in the run's journal; what is newer is dropped when the
directory is opened again. So redoing an exchange is always safe. Versions since the last commit but one are
kept, so that the run can go back by one commit.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from umbel.arrays import Arrays
from umbel.codec import decode, encode
from umbel.errors import CorruptFile, DiskFull, StoreError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (
    client TEXT NOT NULL, sequence INTEGER NOT NULL, data TEXT NOT NULL, PRIMARY KEY (client, sequence)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS arrays (
    client TEXT NOT NULL, sequence INTEGER NOT NULL, place INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (client, sequence, place)
);
CREATE TABLE IF NOT EXISTS written (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER NOT NULL);
"""
_OLD = "sequence < (SELECT max(sequence) FROM state WHERE client = :client AND sequence <= :floor)"


@final
class FileClientStates:
    """Where the clients' states of one run directory are kept; the file is made with the first state.

    Attributes:
        floor: number of the last exchange of the last commit but one; what it needs is kept.
        written: number of the last exchange that gave states.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.floor = self.written = 0
        self._opened: sqlite3.Connection | None = None
        if path.exists():
            with self._errors():
                row = self._db.execute("SELECT sequence FROM written").fetchone()
            self.written = int(row[0]) if row else 0

    @property
    def _db(self) -> sqlite3.Connection:
        if self._opened is None:
            self._opened = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._opened.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + _SCHEMA)
        return self._opened

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE):
                raise DiskFull(
                    f"no room left on the disk while writing {self._path}",
                    advice="free some space and run the same command again: it goes on from the last committed round",
                ) from error
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise CorruptFile(
                    f"{self._path} is damaged ({error})", advice="restore it from a backup, or start in another dir="
                ) from error
            raise StoreError(f"{self._path}: {error}") from error

    def read(self, client: str) -> Mapping[str, Any]:
        """The client's state as of the last exchange it was counted in."""
        if not self.written:
            return {}
        with self._errors():
            row = self._db.execute(
                "SELECT sequence, data FROM state WHERE client = ? ORDER BY sequence DESC LIMIT 1", (client,)
            ).fetchone()
            if row is None:
                return {}
            sequence, data = row
            blobs = self._db.execute(
                "SELECT place, data FROM arrays WHERE client = ? AND sequence = ?", (client, sequence)
            ).fetchall()
        found = {str(place): Arrays.from_bytes(blob, source=f"a state of client {client!r}") for place, blob in blobs}
        state: Mapping[str, Any] = decode(json.loads(data), found.__getitem__)
        return state

    def write(self, sequence: int, states: Mapping[str, Mapping[str, Any]]) -> None:
        """The exchange with this number is over: the new states of clients that were counted."""
        with self._errors(), self._transaction():
            for client, state in states.items():
                self._write_one(client, sequence, state)
            self._db.execute("INSERT OR REPLACE INTO written VALUES (1, ?)", (sequence,))
        self.written = sequence

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.rollback()
            raise
        self._db.execute("COMMIT")

    def _write_one(self, client: str, sequence: int, state: Mapping[str, Any]) -> None:
        blobs: list[Arrays] = []

        def place(arrays: Arrays) -> str:
            blobs.append(arrays)
            return str(len(blobs) - 1)

        data = json.dumps(encode(dict(state), place, where=f"the state of client {client!r}"))
        self._db.execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", (client, sequence, data))
        self._db.execute("DELETE FROM arrays WHERE client = ? AND sequence = ?", (client, sequence))
        rows = [(client, sequence, i, bytes(arrays.to_bytes())) for i, arrays in enumerate(blobs)]
        self._db.executemany("INSERT INTO arrays VALUES (?, ?, ?, ?)", rows)
        old = {"client": client, "floor": self.floor}
        self._db.execute(f"DELETE FROM arrays WHERE client = :client AND {_OLD}", old)
        self._db.execute(f"DELETE FROM state WHERE client = :client AND {_OLD}", old)

    def go_back(self, sequence: int) -> None:
        """Drop what is newer than the exchange with this number."""
        if not self.written:
            return
        with self._errors(), self._transaction():
            self._db.execute("DELETE FROM state WHERE sequence > ?", (sequence,))
            self._db.execute("DELETE FROM arrays WHERE sequence > ?", (sequence,))
            self._db.execute("UPDATE written SET sequence = min(sequence, ?)", (sequence,))
        self.written = min(self.written, sequence)

    def close(self) -> None:
        """Close the database."""
        if self._opened is not None:
            self._opened.close()


__all__ = ["FileClientStates"]

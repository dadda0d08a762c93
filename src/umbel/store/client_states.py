"""Clients' states in SQLite, versioned by the number of the exchange that gave them.

A version counts when the exchange with its number is in the run's journal; what is newer is dropped when the
directory is opened again. So redoing an exchange is always safe.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from umbel.arrays import Arrays
from umbel.codec import decode, encode
from umbel.errors import CorruptFile, DiskFull, StoreError
from umbel.store.damage import is_damage
from umbel.store.durable import GO_ON

# Nobody else may look in while a run works here; so SQLite needs no shared memory beside the file, which not
# every file system has. What was committed outlives a loss of power.
_PRAGMAS = "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
_PRAGMAS += "PRAGMA fullfsync=ON; PRAGMA checkpoint_fullfsync=ON;"  # of macOS, see `durable.sync_file`
_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (
    client TEXT NOT NULL, sequence INTEGER NOT NULL, data TEXT NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (client, sequence)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS arrays (
    client TEXT NOT NULL, sequence INTEGER NOT NULL, place INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (client, sequence, place)
);
CREATE TABLE IF NOT EXISTS written (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    sequence INTEGER NOT NULL, floor INTEGER NOT NULL, checksum INTEGER NOT NULL, run TEXT NOT NULL
);
"""
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_SHMSIZE}
_NEW = "restore the directory from a backup, or start in another dir="


@final
class FileClientStates:
    """Where the clients' states of one run directory are kept; the file is made with the first state.

    Args:
        path: of the file; None: one that has no name, and is gone when it is closed.

    Attributes:
        points: numbers of the exchanges to which the run may have to go back, in order. Of each client the versions
            that these need are kept, and the newest.
        written: number of the last exchange that gave states.
        run: whose states these are: what the next one is written with.

    Raises:
        CorruptFile: the file is damaged.
    """

    def __init__(self, path: Path | None) -> None:
        self._path: Path | str = path or "the temporary file of clients' states"
        self._file: Path | str = path or ""  # what SQLite calls such a file
        self.points: Sequence[int] = ()
        self.written = self._floor = self._checksum = 0
        self.run = ""
        self._opened: sqlite3.Connection | None = None
        if path is not None and path.exists():
            try:
                with self._errors():
                    self._load()
            except BaseException:
                self.close()
                raise

    def _load(self) -> None:
        self._look()
        row = self._db.execute("SELECT run FROM written").fetchone()
        self.run = row[0] if row else ""
        numbers = self.written, self._floor, self._checksum
        if not all(isinstance(n, int) for n in numbers) or self._checksum != _sum_of(
            self._db.execute("SELECT client, sequence FROM state")
        ):
            raise CorruptFile(f"{self._path} is damaged: not all states are as they were written", advice=_NEW)

    def _look(self) -> None:
        row = self._db.execute("SELECT sequence, floor, checksum FROM written").fetchone()
        self.written, self._floor, self._checksum = row or (0, 0, 0)

    @property
    def _db(self) -> sqlite3.Connection:
        if self._opened is None:
            self._opened = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False)
            self._opened.executescript((_PRAGMAS if self._file else "") + _SCHEMA)
        return self._opened

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError as error:  # of SQLite's own messages, when what they quote is damaged
            raise CorruptFile(f"{self._path} is damaged", advice=_NEW) from error
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0)
            if code in _FULL:
                raise DiskFull(f"no room left on the disk while writing {self._path}", advice=GO_ON) from error
            if is_damage(error):
                raise CorruptFile(f"{self._path} is damaged ({error})", advice=_NEW) from error
            raise StoreError(f"{self._path}: {error}", advice="check the path and its permissions") from error

    def stateful(self, clients: Sequence[str]) -> frozenset[str]:
        """Who of these keeps a state."""
        if not self.written:
            return frozenset()
        query = "SELECT 1 FROM state WHERE client = ? LIMIT 1"
        with self._errors():
            return frozenset(client for client in clients if self._db.execute(query, (client,)).fetchone())

    def read(self, client: str) -> Mapping[str, Any]:
        """The client's state as of the last exchange it was counted in.

        Raises:
            CorruptFile: it is damaged.
        """
        if not self.written:
            return {}
        with self._errors():
            row = self._db.execute(
                "SELECT sequence, data, checksum FROM state WHERE client = ? ORDER BY sequence DESC LIMIT 1", (client,)
            ).fetchone()
            if row is None:
                return {}
            sequence, data, checksum = row
            blobs = self._db.execute(
                "SELECT data FROM arrays WHERE client = ? AND sequence = ? ORDER BY place", (client, sequence)
            ).fetchall()
        if not isinstance(data, str) or checksum != _checksum(data, [blob for (blob,) in blobs]):
            raise CorruptFile(f"{self._path} is damaged: the state of client {client!r}", advice=_NEW)
        found = [Arrays.from_bytes(blob, source=f"a state of client {client!r}") for (blob,) in blobs]
        state: Mapping[str, Any] = decode(json.loads(data), lambda place: found[int(place)])
        return state

    def write(self, sequence: int, states: Mapping[str, Mapping[str, Any]]) -> None:
        """The exchange with this number is over: the new states of clients that were counted.

        Raises:
            DiskFull: there is no room; nothing was written.
        """
        with self._errors(), self._transaction():
            checksum = self._checksum
            for client, state in states.items():
                checksum ^= self._write_one(client, sequence, state)
            self._note(sequence, max([self._floor, *self.points[:1]]), checksum)  # what is gone stays gone

    def _note(self, sequence: int, floor: int, checksum: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO written VALUES (1, ?, ?, ?, ?)", (sequence, floor, checksum, self.run))
        self._db.execute("COMMIT")
        self.written, self._floor, self._checksum = sequence, floor, checksum

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._look()  # Ctrl-C may have come between a commit and our taking note of it
            yield
        except BaseException:
            self._db.rollback()
            raise

    def _write_one(self, client: str, sequence: int, state: Mapping[str, Any]) -> int:
        blobs: list[bytes] = []

        def place(arrays: Arrays) -> str:
            blobs.append(bytes(arrays.to_bytes()))
            return str(len(blobs) - 1)

        data = json.dumps(encode(dict(state), place, where=f"the state of client {client!r}"))
        gone = self._not_needed(client, sequence)
        self._drop((client, old) for old in gone)
        row = (client, sequence, data, _checksum(data, blobs))
        self._db.execute("INSERT INTO state VALUES (?, ?, ?, ?)", row)
        rows = [(client, sequence, i, blob) for i, blob in enumerate(blobs)]
        self._db.executemany("INSERT INTO arrays VALUES (?, ?, ?, ?)", rows)
        return _sum_of([(client, sequence), *((client, old) for old in gone)])

    def _not_needed(self, client: str, sequence: int) -> list[int]:
        """The client's versions that go when a new one comes."""
        found = self._db.execute("SELECT sequence FROM state WHERE client = ? ORDER BY sequence", (client,))
        there = [s for (s,) in found]
        needed = {there[i - 1] for point in self.points if (i := bisect_right(there, point))}
        return [s for s in there if s not in needed or s == sequence]

    def _drop(self, versions: Iterable[tuple[str, int]]) -> None:
        gone = list(versions)
        self._db.executemany("DELETE FROM state WHERE client = ? AND sequence = ?", gone)
        self._db.executemany("DELETE FROM arrays WHERE client = ? AND sequence = ?", gone)

    def go_back(self, sequence: int) -> None:
        """Drop what is newer than the exchange with this number; 0: all.

        Raises:
            CorruptFile: what was true then is no longer there.
        """
        if self.written <= sequence:
            return
        if 0 < sequence < self._floor:
            raise CorruptFile(
                f"{self._path} is newer than the journal beside it: it no longer holds the states of that time",
                advice="restore the whole directory from one backup, or start in another dir=",
            )
        with self._errors(), self._transaction():
            newer = self._db.execute("SELECT client, sequence FROM state WHERE sequence > ?", (sequence,)).fetchall()
            self._drop(newer)
            self._note(sequence, min(self._floor, sequence), self._checksum ^ _sum_of(newer))

    def close(self) -> None:
        """Close the database."""
        if self._opened is not None:
            self._opened.close()


def _checksum(data: str, blobs: Iterable[bytes]) -> int:
    """Of one state."""
    check = zlib.crc32(data.encode())
    for blob in blobs:
        check = zlib.crc32(blob if isinstance(blob, bytes) else b"damaged", check)
    return check


def _sum_of(versions: Iterable[tuple[str, int]]) -> int:
    """Of which versions there are, in any order."""
    check = 0
    for client, sequence in versions:
        check ^= zlib.crc32(f"{sequence}:{client}".encode())
    return check


__all__ = ["FileClientStates"]

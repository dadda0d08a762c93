"""What is finished and has not been taken by the server yet, and the lines of the owner's journal that go with it.

One SQLite database; one commit for a finished task, which holds its answer and its lines. So a task costs one durable
write, whatever has to be kept of it (but for the client's new state, which is written at the same time elsewhere).
The lines go into the journal's file at once, and are forgotten here when that file is known to be on the disk.

Large arrays of answers lie beside the database in files named by their digest and the answer. They are not synced:
after a loss of power an answer whose file is damaged is dropped, and its task is done again when it is asked again.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, final

from google.protobuf.message import DecodeError

from umbel import wire
from umbel.digest import digest_of
from umbel.errors import CorruptFile, DiskFull, StoreError
from umbel.node.journal import OwnersJournal
from umbel.store.damage import is_damage
from umbel.store.durable import readable_errors

_PRAGMAS = "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA fullfsync=ON;"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    run TEXT NOT NULL, exchange INTEGER NOT NULL, client TEXT NOT NULL, attempt INTEGER NOT NULL,
    question BLOB NOT NULL, report BLOB NOT NULL, files TEXT NOT NULL, taken INTEGER NOT NULL,
    PRIMARY KEY (run, exchange, client)
);
CREATE TABLE IF NOT EXISTS lines (number INTEGER PRIMARY KEY, line TEXT NOT NULL);
"""
_UNSYNCED = 256  # lines, after which the journal's file is synced and they are forgotten here
_TAKEN = 256  # answers that the server has, for tasks that come again because a message was under way
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC}


@final
class Key(NamedTuple):
    """Which task: all its attempts have the same answer.

    Attributes:
        run: 32 hex digits.
        exchange: in the run.
        client: the node's name when it was asked.
    """

    run: str
    exchange: int
    client: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """An answer.

    Attributes:
        key: of what.
        attempt: which one was asked.
        question: SHA-256 of what was asked, without the attempt.
        report: the ReportRequest's bytes.
        files: digests, hex, of its large arrays.
        taken: has the server said what became of it?
    """

    key: Key
    attempt: int
    question: bytes
    report: bytes
    files: tuple[str, ...] = ()
    taken: bool = False

    def answers(self, attempt: int, question: bytes) -> bool:
        """Does it answer this attempt at this question? What failed is tried again when the server asks again."""
        if self.question != question:
            return False
        failed = wire.ReportRequest.FromString(self.report).HasField("failure")
        return not failed or (attempt == self.attempt and not self.taken)


@final
class Outbox:
    """The database, the files beside it, and the journal. Not for several threads at once.

    Args:
        directory: where it lies; it is made if it does not exist.
        journal: where the owner's journal lies.
        largest: bytes of a file of the journal.
        now: seconds since 1970.

    Raises:
        CorruptFile: the database is damaged.
    """

    def __init__(self, directory: Path, *, journal: Path, largest: int, now: Callable[[], float]) -> None:
        self._path, self._now = directory / "answers.sqlite", now
        self.files = directory / "files"
        with readable_errors(directory):
            self.files.mkdir(parents=True, exist_ok=True)
        self._remover = ThreadPoolExecutor(1, thread_name_prefix="umbel-remover")
        self._unsynced: list[dict[str, Any]] = []  # lines that only the database is sure to keep, or not even that
        self._stored = 0  # of these, how many the database has
        with self._errors():
            self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            try:
                self._db.executescript(_PRAGMAS + _SCHEMA)
                lines = [json.loads(x) for (x,) in self._db.execute("SELECT line FROM lines ORDER BY number")]
                self._journal = OwnersJournal(journal, largest=largest, kept={line["number"] for line in lines})
                self._recover(lines)
            except BaseException:
                self._db.close()
                raise

    def _recover(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Lines that a loss of power took from the journal's file are written there again."""
        self._journal.append([line for line in lines if line["number"] > self._journal.number])
        self._journal.sync()
        self._db.execute("DELETE FROM lines")

    def note(self, event: str, content: Mapping[str, Any]) -> None:
        """Write a line of the journal; on the disk with the next `finish`.

        Args:
            event: what happened.
            content: to what; JSON.
        """
        self._write([self._line(event, content)])

    def finish(self, answer: Finished, event: str, content: Mapping[str, Any]) -> None:
        """Keep an answer and the line about it, and all lines before; on the disk when this returns.

        Raises:
            DiskFull: there is no room; nothing was kept.
        """
        line = self._line(event, content)
        rows = [(x["number"], json.dumps(x)) for x in (*self._unsynced[self._stored :], line)]
        row = (*answer.key, answer.attempt, answer.question, answer.report, json.dumps(answer.files), answer.taken)
        with self._errors(), self._transaction():
            self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            self._db.executemany("INSERT OR REPLACE INTO lines VALUES (?, ?)", rows)
        with suppress(DiskFull):  # the database has the line; it is written to the file when there is room
            self._write([line], is_stored=True)

    def _line(self, event: str, content: Mapping[str, Any]) -> dict[str, Any]:
        number = self._unsynced[-1]["number"] if self._unsynced else self._journal.number
        return {"number": number + 1, "time": round(self._now(), 3), "event": event, **content}

    def _write(self, lines: list[dict[str, Any]], *, is_stored: bool = False) -> None:
        """Append lines to the journal's file, behind those for which there was no room before."""
        if is_stored:
            self._unsynced += lines
            self._stored = len(self._unsynced)
        late = [line for line in self._unsynced if line["number"] > self._journal.number]
        self._journal.append(late if is_stored else [*late, *lines])
        if not is_stored:
            self._unsynced += lines

    def waiting(self) -> list[Finished]:
        """Answers that the server has not taken yet, in the order of their exchanges."""
        with self._errors():
            rows = self._db.execute("SELECT * FROM answers WHERE NOT taken ORDER BY rowid").fetchall()
            return [_answer(row) for row in rows]

    def find(self, key: Key) -> Finished | None:
        """The answer to a task, if it is finished."""
        with self._errors():
            row = self._db.execute(
                "SELECT * FROM answers WHERE run = ? AND exchange = ? AND client = ?", key
            ).fetchone()
            return None if row is None else _answer(row)

    def ask_again(self, answer: Finished, attempt: int) -> Finished:
        """The same answer, for another attempt: it is to be sent once more."""
        if answer.attempt == attempt and not answer.taken:
            return answer
        report = wire.ReportRequest.FromString(answer.report)
        report.id.attempt = attempt
        again = replace(answer, attempt=attempt, report=report.SerializeToString(), taken=False)
        with self._errors(), self._unsynced_commit():
            self._db.execute(
                "UPDATE answers SET attempt = ?, report = ?, taken = 0 WHERE run = ? AND exchange = ? AND client = ?",
                (attempt, again.report, *answer.key),
            )
        return again

    def take(self, key: Key) -> None:
        """The server has the answer, or wants it no more; its files go. Need not outlive a loss of power."""
        with self._errors(), self._unsynced_commit():
            self._db.execute(
                "UPDATE answers SET taken = 1, files = '[]' WHERE run = ? AND exchange = ? AND client = ?", key
            )
            self._db.execute(
                "DELETE FROM answers WHERE taken AND rowid <= "
                f"(SELECT rowid FROM answers WHERE taken ORDER BY rowid DESC LIMIT 1 OFFSET {_TAKEN})"
            )
        self.clear(key)

    def drop(self, key: Key) -> None:
        """Forget an answer."""
        self.take(key)
        with self._errors(), self._unsynced_commit():
            self._db.execute("DELETE FROM answers WHERE run = ? AND exchange = ? AND client = ?", key)

    def trim(self) -> None:
        """Settle, if there are many lines."""
        if len(self._unsynced) >= _UNSYNCED:
            self.settle()

    def settle(self) -> None:
        """Sync the journal's file; its lines are no longer needed here. That takes its time: not while a task waits."""
        self._write([])
        self._journal.sync()
        with self._errors(), self._unsynced_commit():
            self._db.execute("DELETE FROM lines")
        self._unsynced.clear()
        self._stored = 0

    def sweep(self) -> None:
        """Remove files that no answer needs."""
        with self._errors():
            rows = self._db.execute("SELECT run, exchange, client, files FROM answers").fetchall()
            needed = {self.path(Key(*key), digest) for *key, files in rows for digest in json.loads(files)}
        self._remove(path for path in list(self.files.iterdir()) if path not in needed)

    def path(self, key: Key, digest: str) -> Path:
        """Where large arrays of an answer lie; no other answer's, though they be the same."""
        return self.files / f"{digest}.{_owner(key)}"

    def clear(self, key: Key) -> None:
        """Remove the files of an answer that was not kept, or is no more."""
        owner = f".{_owner(key)}"
        self._remove(path for path in list(self.files.iterdir()) if path.suffix == owner)

    def _remove(self, paths: Iterable[Path]) -> None:
        """Remove files. To free a large one takes a while: that is done in a thread for which no task waits."""
        for path in paths:
            with suppress(FileNotFoundError):
                aside = path.with_name(f"{secrets.token_hex(8)}.gone")
                path.rename(aside)
                self._remover.submit(aside.unlink)

    def close(self) -> None:
        """Sync the journal, and close all files."""
        self._remover.shutdown()
        with suppress(DiskFull):  # the next start settles what is left
            self.settle()
        self._journal.close()
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _unsynced_commit(self) -> Iterator[None]:
        """A change that may be lost with the power, and is not waited for."""
        self._db.execute("PRAGMA synchronous=NORMAL")
        try:
            with self._transaction():
                yield
        finally:
            self._db.execute("PRAGMA synchronous=FULL")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0)
            if code in _FULL:
                raise DiskFull(f"no room left on the disk while writing {self._path}", advice="free some") from error
            if is_damage(error):
                raise self._damaged(error) from error
            raise StoreError(f"{self._path}: {error}", advice="check the path and its permissions") from error
        except (ValueError, TypeError, KeyError, DecodeError) as error:  # what SQLite has no checksum for
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> CorruptFile:
        return CorruptFile(
            f"{self._path} is damaged ({error})", advice="remove it: what was finished and not sent is then done again"
        )


def _owner(key: Key) -> str:
    """How the names of an answer's files end."""
    return digest_of(json.dumps(key).encode()).hex()[:16]


def _answer(row: tuple[Any, ...]) -> Finished:
    run, exchange, client, attempt, question, report, files, taken = row
    wire.ReportRequest.FromString(report)  # whoever reads it later counts on that
    return Finished(
        key=Key(run, exchange, client),
        attempt=attempt,
        question=question,
        report=report,
        files=tuple(json.loads(files)),
        taken=bool(taken),
    )


__all__ = ["Finished", "Key", "Outbox"]

"""A server's database in SQLite: one file in the server's directory."""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, final
from urllib.parse import quote

from sqlalchemy import URL, Connection, NullPool, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from umbel.errors import InUse, StoreError, UsageError
from umbel.store.durable import TEMPORARY, readable_errors, sync_directory, sync_file
from umbel.store.lock import DirectoryLock
from umbel.store.sql.errors import readable
from umbel.store.sql.pair import check_new
from umbel.store.sql.schema import Schema

# What was committed outlives a loss of power; readers do not wait for who writes. fullfsync is of macOS, see
# `durable.sync_file`.
_PRAGMAS = ("foreign_keys=ON", "journal_mode=WAL", "synchronous=FULL", "fullfsync=ON", "checkpoint_fullfsync=ON")
_CACHE = "cache_size=-65536"  # KiB
_PATIENCE = 30.0  # seconds; nobody else writes, but a backup program may hold the file for a moment


@final
class Sqlite:
    """The database in a file.

    Args:
        url: of the file.
        directory: of the server; held, like that of the file, so that there is one process in it.

    Raises:
        InUse: another process works there.
        NewerSchema: a newer version of Umbel wrote it; nothing was changed.
        StoreError: the file cannot be opened, or does not belong to the directory.
    """

    begin = "BEGIN IMMEDIATE"

    def __init__(self, url: URL, directory: Path, schema: Schema) -> None:
        if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
            raise UsageError("a server's database in memory would be lost", advice="give sqlite:///PATH")
        self.path = Path(url.database).absolute()
        self.name = str(self.path)
        with ExitStack() as held:
            for place in dict.fromkeys((directory.absolute().resolve(), self.path.parent.resolve())):
                held.callback(_lock(place).close)
            self._look(schema, directory)
            self._writing = create_engine(
                url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args={"timeout": _PATIENCE}
            )
            self.reading = create_engine(url, connect_args={"timeout": _PATIENCE}, pool_size=5, max_overflow=100)
            event.listen(self._writing, "connect", _set_up)
            event.listen(self.reading, "connect", _set_up_reading)
            self._held = held.pop_all()

    def _look(self, schema: Schema, directory: Path) -> None:
        """Refuse what a newer version has written before anything is changed: even the pragmas change the file."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            check_new(self.name, directory)
            return
        address = f"file:{quote(self.path.as_posix())}?mode=ro"
        looking = create_engine("sqlite://", poolclass=NullPool, creator=lambda: sqlite3.connect(address, uri=True))
        try:
            with looking.connect() as connection:
                schema.found(connection, self.name)
        except SQLAlchemyError as error:
            raise readable(error, self.name) from error
        finally:
            looking.dispose()

    def claim(self) -> Connection:
        """The connection for who writes; the lock on the directory is held since the beginning."""
        try:
            return self._writing.connect()
        except SQLAlchemyError as error:
            raise readable(error, self.name) from error

    def before_upgrade(self, found: str) -> None:
        """Copy the file before its schema changes."""
        if found:
            copy_database(self.path, self.path.with_name(f"{self.path.name}.before-{found}"))

    def moment(self, connection: Connection) -> str:
        """Nothing: a connection to a file is not lost."""
        del connection
        return ""

    def happened(self, connection: Connection, moment: str) -> bool:
        """Never asked."""
        raise AssertionError(f"a connection to {self.name} was lost at {moment!r}: {connection}")

    def close(self) -> None:
        """Let go of the file and the directory."""
        self.reading.dispose()
        self._writing.dispose()
        self._held.close()


def _lock(directory: Path) -> DirectoryLock:
    with readable_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    try:
        return DirectoryLock(directory)
    except InUse as error:
        raise InUse(
            f"{directory} is in use by another server",
            advice="stop that server, or give this one another directory; a server's database belongs to one process",
        ) from error


def _set_up(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in (*_PRAGMAS, _CACHE):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _set_up_reading(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only=ON")
    cursor.close()


def copy_database(path: Path, copy: Path) -> None:
    """Copy a database that may be in use; the copy is on the disk, whole, before it has its name.

    Raises:
        StoreError: it cannot be read, or the copy cannot be written.
    """
    temporary = copy.with_name(copy.name + TEMPORARY)
    with readable_errors(copy), suppress(FileNotFoundError):
        temporary.unlink()
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(temporary)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE").fetchone()  # one file, without a log beside it
    except sqlite3.Error as error:
        with suppress(OSError):
            temporary.unlink()
        raise StoreError(f"{path} cannot be copied to {copy}: {error}", advice="check the path and the room") from error
    with readable_errors(copy):
        file = os.open(temporary, os.O_RDONLY)
        try:
            sync_file(file)
        finally:
            os.close(file)
        os.replace(temporary, copy)
    sync_directory(copy.parent)


__all__ = ["Sqlite", "copy_database"]

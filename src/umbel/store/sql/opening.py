"""From an address to a database that is ours alone and up to date."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from sqlalchemy import URL, Connection, insert, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from umbel.errors import InUse, UsageError
from umbel.store.sql import tables
from umbel.store.sql.base import Database
from umbel.store.sql.pair import check_new, check_old
from umbel.store.sql.postgres import Postgres
from umbel.store.sql.schema import Schema
from umbel.store.sql.sqlite import Sqlite

FILE = "umbel.sqlite"  # in the server's directory, if nobody names another database
_FORMS = "give sqlite:///PATH or postgresql://USER@HOST/NAME"
_CODED = "of a password, write : / ? # @ and % as %3A %2F %3F %23 %40 and %25"


def read_address(text: str) -> URL:
    """The address of a database.

    Raises:
        UsageError: it is none; the text is not told, which may hold a password.
    """
    try:
        found = make_url(text)
    except (ArgumentError, ValueError):  # with what it has read for a port, which may be a part of the password
        raise UsageError("the address of the database is none", advice=f"{_FORMS}; {_CODED}") from None
    if found.host and "@" in f"{found.host}{found.database}":
        raise UsageError("the address of the database has more than one @", advice=f"{_FORMS}; {_CODED}")
    return found


def open_database(url: str, directory: Path, schema: Schema) -> Database:
    """The database at an address; see `umbel.store.sql.store.ServerStore` for what it raises."""
    found = read_address(url) if url else URL.create("sqlite", database=str(directory.absolute() / FILE))
    kind = found.drivername.partition("+")[0]
    if kind == "sqlite":
        return Sqlite(found, directory, schema)
    if kind in ("postgresql", "postgres"):
        return Postgres(found, directory)
    raise UsageError(f"the store cannot live in {kind!r}", advice=_FORMS)


def prepare(
    connection: Connection, database: Database, steps: Schema, *, directory: Path, now: float
) -> tuple[str, int]:
    """Bring the schema up to date; gives who we are, and how often the database was opened.

    Args:
        connection: to the database.
        database: which.
        steps: that this version knows.
        directory: of the server.
        now: seconds since 1970.

    Raises:
        StoreError: database and directory do not belong together.
    """
    found = steps.found(connection, database.name)
    if found:
        check_old(connection, database.name, directory)
    else:
        check_new(database.name, directory)
    if found != steps.newest:
        database.before_upgrade(found)
    connection.exec_driver_sql(database.begin)
    try:
        if found != steps.newest:
            steps.upgrade(connection, found)
        row = connection.execute(select(tables.federation)).first()
        if row is None:
            id, turn = secrets.token_hex(16), 1
            connection.execute(insert(tables.federation), {"one": 1, "id": id, "made": now, "opened": turn})
        else:
            id, turn = row.id, row.opened + 1
            connection.execute(update(tables.federation).values(opened=turn))
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        with suppress(SQLAlchemyError):  # SQLite has done it already if the disk is full, which is what is to be said
            connection.exec_driver_sql("ROLLBACK")
        raise
    return id, turn


def check_turn(connection: Connection, *, turn: int, name: str) -> None:
    """Refuse to go on if somebody else has opened the database since."""
    if connection.execute(select(tables.federation.c.opened)).scalar_one() != turn:
        raise InUse(
            f"{name} was opened by another server while this one had lost its connection",
            advice="start this server again, if the other one is not wanted",
        )


__all__ = ["FILE", "check_turn", "open_database", "prepare", "read_address"]

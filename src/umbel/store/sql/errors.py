"""What the databases' drivers raise, as our own errors: one table for each."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import (
    DatabaseError,
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
    SQLAlchemyError,
)

from umbel.errors import CorruptFile, DiskFull, StoreError, UmbelError
from umbel.store.damage import is_damage

_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_SHMSIZE}
_HELD = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
# of PostgreSQL: it has no room, or no connection to spare; it ends, or has begun only; nobody listens; another has
# taken over from it
_NO_ROOM = {"53100"}
_READ_ONLY = "25006"
_PASSING = {"53300", "57P01", "57P02", "57P03", "57P05", "25P03", _READ_ONLY}
_AGAIN = {"40001", "40P01"}  # two that wait for each other; the same transaction can be made again
_DAMAGED_PAGES = {"XX001", "XX002"}


def readable(error: BaseException, name: str) -> BaseException:
    """The same as our own error.

    Args:
        error: anything.
        name: what the database is called.
    """
    if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error):
        return _of_sqlite(error.orig, name)
    if isinstance(error, DBAPIError):
        return _of_postgres(error, name)
    if isinstance(error, SQLAlchemyError):
        return StoreError(f"{name}: {error}", advice="look at the log of the server, and report this")
    return error


def _of_sqlite(error: sqlite3.Error, name: str) -> UmbelError:
    code = getattr(error, "sqlite_errorcode", 0)
    if code in _FULL:
        return DiskFull(f"no room left on the disk while writing {name}", advice="free some space; then try again")
    if is_damage(error):
        return CorruptFile(
            f"{name} is damaged, or is not a database ({error})", advice="stop the server, and restore a backup"
        )
    if code & 0xFF in _HELD:
        return StoreError(
            f"{name} is held by another program",
            advice="end that program: only the server may write there; `umbel server backup` makes copies",
        )
    return StoreError(f"{name}: {error}", advice="check the path, its permissions and the disk")


def _of_postgres(error: DBAPIError, name: str) -> UmbelError:
    code, text = sqlstate(error), str(error.orig).partition("\n")[0]
    if code in _NO_ROOM:
        return DiskFull(f"no room left at {name} ({text})", advice="free some space there; then try again")
    if code in _DAMAGED_PAGES:
        return CorruptFile(f"{name} is damaged ({text})", advice="stop the server, and restore a backup")
    if code == _READ_ONLY:
        return StoreError(
            f"{name} can only be read ({text})",
            advice="if it is a standby, give the address of the one that it follows",
        )
    return StoreError(f"{name}: {text}", advice="check that the database runs, its address, and the rights of the user")


def sqlstate(error: BaseException) -> str:
    """PostgreSQL's code of an error, or ""."""
    return getattr(getattr(error, "orig", error), "sqlstate", None) or ""


def passing(error: BaseException) -> bool:
    """May PostgreSQL do the same in a moment, on a new connection?"""
    if not isinstance(error, DBAPIError) or isinstance(error.orig, sqlite3.Error):
        return False
    code = sqlstate(error)
    lost = error.connection_invalidated or (not code and isinstance(error, OperationalError))
    return lost or code[:2] == "08" or code in _PASSING or code in _AGAIN


def spoils(error: BaseException) -> bool:
    """Is it about the whole transaction, and not the one statement?"""
    if isinstance(error, DBAPIError) and getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_ERROR:
        return False  # what it calls operational is a statement that makes no sense
    return (
        isinstance(error, OperationalError | InterfaceError | InternalError)
        or type(error) is DatabaseError  # SQLite's of a damaged file
        or passing(error)
    )


__all__ = ["passing", "readable", "spoils", "sqlstate"]

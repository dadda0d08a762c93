"""A copy of a server, made by another process while it runs.

What the copy of the database names is there: files of blobs do not change, and while the copy is made none is removed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from umbel.errors import StoreError, UsageError
from umbel.store.durable import readable_errors, sync_directory, sync_file
from umbel.store.lock import copying

_PARTIAL = ".partial"  # what the directory is called until it is whole
_KEYS = ("authority.pem", "server.pem", "ca.crt")
_DATABASE = "umbel.sqlite"


def back_up(directory: Path, path: Path, database: str) -> int:
    """Copy a server; gives how many bytes the copy has.

    Args:
        directory: the server's.
        path: of the copy; it does not exist yet.
        database: address of a PostgreSQL; "": SQLite in the directory.

    Raises:
        UsageError: the copy is there already, or there is no server in the directory.
        StoreError: something cannot be read or written.
    """
    if path.exists():
        raise UsageError(f"{path} is there already", advice="give a directory that does not exist")
    _check_server(directory, database)
    whole = path.with_name(path.name + _PARTIAL)
    try:
        with readable_errors(whole):
            shutil.rmtree(whole, ignore_errors=True)
            whole.mkdir(mode=0o700, parents=True)
            (whole / "blobs").mkdir()
        _copy(directory, whole, database)
        with readable_errors(whole):
            size = sum(file.stat().st_size for file in _files(whole))
            whole.rename(path)
    except BaseException:
        shutil.rmtree(whole, ignore_errors=True)  # it may have filled the disk
        raise
    sync_directory(path.absolute().parent)
    return size


def _check_server(directory: Path, database: str) -> None:
    """Refuse to copy what is no server's: that models and keys are missing is noticed when they are needed."""
    if not (directory / "blobs").is_dir():
        raise UsageError(f"{directory} is not the directory of a server", advice="give its --dir")
    if not database and not (directory / _DATABASE).is_file():
        raise UsageError(
            f"{directory} holds no database",
            advice="give the server's PostgreSQL, as the server was given it: --database",
        )


def _copy(directory: Path, whole: Path, database: str) -> None:
    """Copy all that there is; it outlives a loss of power."""
    with copying(directory / "blobs"):
        if database:
            _dump(database, whole / "umbel.dump")
        else:
            from umbel.store.sql.sqlite import copy_database

            copy_database(directory / _DATABASE, whole / _DATABASE)
        _link_blobs(directory / "blobs", whole / "blobs")
    with readable_errors(whole):
        for name in _KEYS:
            if (directory / name).exists():
                _copy_file(directory / name, whole / name)
    for place in (whole / "blobs", whole):
        sync_directory(place)


def _link_blobs(blobs: Path, copy: Path) -> None:
    """Link, or copy, all files of blobs; not those that are still being written."""
    from umbel.store.sql.blobs import SUFFIX

    with readable_errors(copy):
        for entry in os.scandir(blobs):
            if entry.name.endswith(SUFFIX) and entry.is_file():
                _link(Path(entry.path), copy / entry.name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        return  # it was on its way out when the copy began, so nothing names it
    except OSError:  # another file system, or one without links
        _copy_file(source, target)


def _copy_file(source: Path, target: Path) -> None:
    shutil.copy2(source, target)
    with target.open("rb") as copy:
        sync_file(copy.fileno())


def _dump(database: str, target: Path) -> None:
    from umbel.store.sql.opening import read_address

    address = read_address(database).set(drivername="postgresql")
    secret = {} if address.password is None else {"PGPASSWORD": str(address.password)}  # all may see which commands run
    plain = address._replace(password=None).render_as_string(hide_password=False)
    command = ["pg_dump", "--format=custom", f"--file={target}", plain]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **secret})
    except OSError as error:
        raise StoreError(
            f"pg_dump cannot be started: {error.strerror}", advice="install PostgreSQL's client"
        ) from error
    if done.returncode:
        raise StoreError(f"pg_dump has failed: {done.stderr.strip()[-500:]}", advice="check --database")


def _files(directory: Path) -> Iterator[Path]:
    return (file for file in directory.rglob("*") if file.is_file())


__all__ = ["back_up"]

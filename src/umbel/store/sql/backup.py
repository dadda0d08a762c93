"""A copy of a server's store, made while it is in use."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from umbel.errors import UsageError
from umbel.store.durable import readable_errors, sync_directory, sync_file
from umbel.store.sql.base import Database
from umbel.store.sql.blobs import SUFFIX, ServerBlobs
from umbel.store.sql.sqlite import Sqlite, copy_database

_PARTIAL = ".partial"  # what the directory is called until it is whole


def back_up(database: Database, blobs: ServerBlobs, path: Path, dump: Callable[[Path], None] | None) -> None:
    """Copy the database, then the blobs that it names; these do not change, so that links to them will do."""
    if path.exists():
        raise UsageError(f"{path} is there already", advice="give a directory that does not exist")
    if not isinstance(database, Sqlite) and dump is None:
        raise UsageError(
            f"{database.name} is not a file that could be copied",
            advice="give dump=, which writes it with pg_dump --format=custom; the blobs are copied meanwhile",
        )
    whole = path.with_name(path.name + _PARTIAL)
    with readable_errors(whole):
        shutil.rmtree(whole, ignore_errors=True)
        (whole / "blobs").mkdir(parents=True)
    with blobs.pinned():
        if isinstance(database, Sqlite):
            copy = whole / database.path.name
            copy_database(database.path, copy)
            names = _named(copy)
        else:
            assert dump is not None
            dump(whole)
            names = sorted(entry.name for entry in os.scandir(blobs.directory) if entry.name.endswith(SUFFIX))
        for name in names:
            _link(blobs.directory / name, whole / "blobs" / name)
    for place in (whole / "blobs", whole):
        sync_directory(place)
    with readable_errors(path):
        os.rename(whole, path)
    sync_directory(path.parent)


def _named(copy: Path) -> list[str]:
    with closing(sqlite3.connect(copy)) as connection:
        found = connection.execute("SELECT digest FROM blob WHERE content IS NULL").fetchall()
    return [f"{digest}{SUFFIX}" for (digest,) in found]


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        with readable_errors(source):
            raise
    except OSError:  # another file system, or one without links
        with readable_errors(target):
            shutil.copyfile(source, target)
            file = os.open(target, os.O_RDONLY)
            try:
                sync_file(file)
            finally:
                os.close(file)


__all__ = ["back_up"]

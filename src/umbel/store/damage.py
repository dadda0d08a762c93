"""Does an error of SQLite say that the file is damaged?"""

from __future__ import annotations

import sqlite3

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_damage(error: sqlite3.Error) -> bool:
    """Is the file damaged, or no database?"""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # of Python's module itself: SQLite has no checksums, and gives out what it finds
        return "Could not decode to UTF-8" in str(error)
    return code & 0xFF in _DAMAGED  # the low byte is the kind of error


__all__ = ["is_damage"]

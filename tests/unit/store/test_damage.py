from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from umbel.store.damage import is_damage


def refused(database: sqlite3.Connection, query: str) -> sqlite3.Error:
    with pytest.raises(sqlite3.Error) as error:
        database.execute(query).fetchall()
    return error.value


def test_what_says_that_a_file_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no database" * 1000)
    with closing(sqlite3.connect(tmp_path / "file")) as database:
        assert is_damage(refused(database, "SELECT * FROM sqlite_master"))
    with closing(sqlite3.connect(":memory:")) as database:
        assert is_damage(refused(database, "SELECT CAST(x'ff' AS TEXT)"))
        assert not is_damage(refused(database, "SELECT * FROM nothing"))

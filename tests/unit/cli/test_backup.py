"""Copies of a server that cannot be made: what is said, and what is left."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

from umbel.cli.backup import back_up
from umbel.errors import StoreError, UsageError
from umbel.store.sql import ServerStore

NOBODY = "postgresql://umbel@/nobody?host=/nowhere"


def server(directory: Path) -> Path:
    ServerStore("", directory, now=lambda: 0.0).close()
    return directory


def test_a_directory_that_is_no_servers(tmp_path: Path) -> None:
    for database in ("", NOBODY):
        with pytest.raises(UsageError, match="elsewhere is not the directory of a server"):
            back_up(tmp_path / "elsewhere", tmp_path / "copy", database)
    assert list(tmp_path.iterdir()) == []


def test_a_server_whose_database_is_another(tmp_path: Path) -> None:
    directory = server(tmp_path / "server")
    (directory / "umbel.sqlite").unlink()
    with pytest.raises(UsageError, match="holds no database") as refused:
        back_up(directory, tmp_path / "copy", "")
    assert "--database" in refused.value.advice


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = server(tmp_path / "server")
    monkeypatch.setenv("PATH", str(tmp_path))  # without pg_dump
    with pytest.raises(StoreError, match="pg_dump"):
        back_up(directory, tmp_path / "copy", NOBODY)
    assert [path.name for path in tmp_path.iterdir()] == ["server"]

"""Copies of a server that cannot be made: what is said, and what is left."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

from tests.unit.store.sql.stores import RUN, answer, opened, with_exchange
from umbel.cli.backup import back_up
from umbel.errors import StoreError, UsageError
from umbel.store.sql import ServerStore
from umbel.store.sql.sqlite import copy_database

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


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_the_password_of_a_database_stands_in_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All users of a machine may see which commands run."""
    program = tmp_path / "bin" / "pg_dump"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$*" > $0.said\necho "$PGPASSWORD" >> $0.said\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    back_up(server(tmp_path / "server"), tmp_path / "copy", "postgresql+psycopg://me:se%40cret@host/name")
    arguments, password = program.with_name("pg_dump.said").read_text().splitlines()
    assert arguments.endswith(" postgresql://me@host/name")
    assert "cret" not in arguments
    assert password == "se@cret"


def test_a_copy_is_a_directory_that_a_server_can_open(tmp_path: Path) -> None:
    with opened(tmp_path / "server") as store:
        with_exchange(store)
        kept = [store.blobs.keep_bytes(b"small"), store.blobs.keep_bytes(b"large" * 50_000)]
        store.accept(RUN, 1, answer("a"), kept).result()
        (tmp_path / "copy.partial").mkdir()
        assert back_up(tmp_path / "server", tmp_path / "copy", "") > 250_000
        store.accept(RUN, 1, answer("b")).result()
        with pytest.raises(UsageError, match="is there already"):
            back_up(tmp_path / "server", tmp_path / "copy", "")
    with opened(tmp_path / "copy") as store:
        assert [row.client for row in store.answers(RUN, 1)] == ["a"]
        assert store.blobs.read(kept[0].digest) == b"small"
        assert store.blobs.path(kept[1].digest).read_bytes() == b"large" * 50_000


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_copy_has_the_models_that_its_database_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Rounds end while the database is copied, and the server removes what they leave behind."""
    with opened(tmp_path / "server") as store:
        with_exchange(store)

        def rounds(*numbers: int) -> None:
            for n in numbers:
                kept = store.blobs.keep_bytes(bytes([n]) * 70_000)
                store.commit(RUN, "0", round=n, sequence=n, state="0", blobs={"commit": [kept]}).result()
            store.sweep(-1.0).result(60)

        def copied(path: Path, copy: Path) -> None:
            if moment == "before":
                rounds(2, 3, 4)
            copy_database(path, copy)
            rounds(5, 6, 7)

        rounds(1)
        monkeypatch.setattr("umbel.store.sql.sqlite.copy_database", copied)
        back_up(tmp_path / "server", tmp_path / "copy", "")
        with closing(sqlite3.connect(tmp_path / "copy" / "umbel.sqlite")) as database:
            named = {digest for (digest,) in database.execute("SELECT digest FROM blob WHERE content IS NULL")}
        assert named
        assert named <= {path.stem for path in (tmp_path / "copy" / "blobs").iterdir()}
        left = {path.stem for path in store.blobs.directory.iterdir()}
        store.sweep(-1.0).result(60)
        assert len({path.stem for path in store.blobs.directory.iterdir()}) == 2 < len(left)

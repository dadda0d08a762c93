"""The schema is the sum of its migrations, in both databases, and old databases become new ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, NullPool, create_engine, insert, inspect, text

from tests.unit.store.sql.stores import opened, url_of
from umbel.errors import NewerSchema, StoreError
from umbel.store.sql.schema import Schema
from umbel.store.sql.tables import metadata

pytest_plugins = ("tests.postgres",)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return url_of(tmp_path)
    found: str = request.getfixturevalue("postgres_url")
    return found


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def described(connection: Connection) -> dict[str, Any]:
    """Everything that the database knows of its tables."""
    looked = inspect(connection)
    found: dict[str, Any] = {}
    for table in sorted(set(looked.get_table_names()) - {"alembic_version"}):
        columns = [{k: str(v) for k, v in column.items()} for column in looked.get_columns(table)]
        found[table] = {
            "columns": sorted(columns, key=lambda column: column["name"]),  # later steps add them at the end
            "primary": looked.get_pk_constraint(table),
            "foreign": sorted(map(str, looked.get_foreign_keys(table))),
            "unique": sorted(str(sorted(one.items(), key=str)) for one in looked.get_unique_constraints(table)),
            "checks": sorted(str(one["sqltext"]) for one in looked.get_check_constraints(table)),
            "indexes": sorted(str(one["name"]) + str(one["column_names"]) for one in looked.get_indexes(table)),
        }
    return found


def test_it_is_the_sum_of_the_migrations(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url):
        pass
    with connected(url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        migrated = described(connection)
        for table in reversed(metadata.sorted_tables):
            table.drop(connection)
        metadata.create_all(connection)
        assert described(connection) == migrated


def test_the_names_of_the_steps_say_which_is_the_newest() -> None:
    with as_file(files("umbel.store.sql") / "migrations") as directory:
        assert Schema().newest == ScriptDirectory(str(directory)).get_current_head()


def at_first(url: str) -> None:
    """A database of the first version, with something in it."""
    with connected(url) as connection:
        schema = Schema()
        schema.upgrade(connection, "", "0001")
        old = MetaData()
        old.reflect(connection)
        rows: dict[str, dict[str, Any]] = {
            "federation": {"one": 1, "id": "f" * 32, "made": 1.0, "opened": 3},
            "node": {
                "name": "berlin",
                "public_key": b"k" * 32,
                "labels": '{"land": "de"}',
                "enrolled": 1.0,
                "seen": 2.0,
                "revoked": False,
            },
            "run": {
                "id": "a" * 32,
                "key": "k",
                "name": "run",
                "owner": "anna",
                "status": "running",
                "reason": "",
                "rounds": 5,
                "round": 1,
                "submitted": 1.0,
                "started": 2.0,
                "ended": 0.0,
                "submission": "{}",
                "nodes": "[]",
                "labels": "{}",
                "dataset": "",
                "app": "{}",
            },
            "blob": {"digest": hashlib.sha256(b"x").hexdigest(), "size": 1, "content": b"x"},
        }
        for name, row in rows.items():
            connection.execute(insert(old.tables[name]), row)
        named = {"run": "a" * 32, "kind": "submission", "number": 0, "digest": rows["blob"]["digest"]}
        connection.execute(insert(old.tables["reference"]), named)


def test_an_old_database_becomes_a_new_one(url: str, tmp_path: Path) -> None:
    at_first(url)
    for _ in range(2):
        with opened(tmp_path, url) as store:
            assert store.federation == "f" * 32
            (node,) = store.nodes()
            assert (node.name, dict(node.labels), node.seen, node.program) == ("berlin", {"land": "de"}, 2.0, "")
            (run,) = store.runs()
            assert (run.status, run.rounds) == ("running", 5)
            assert store.event(run.id, "log", {}).result() >= 1
            store.sweep(-1.0).result()
            assert store.blobs.read(hashlib.sha256(b"x").hexdigest()) == b"x"


def test_an_old_file_is_copied_before_it_is_changed(tmp_path: Path) -> None:
    at_first(url_of(tmp_path))
    with opened(tmp_path):
        pass
    with connected(f"sqlite:///{tmp_path}/umbel.sqlite.before-0001") as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0001"
        assert connection.execute(text("SELECT name FROM node")).scalar() == "berlin"


def test_a_step_that_fails_changes_nothing(url: str, tmp_path: Path) -> None:
    at_first(url)
    with connected(url) as connection:
        connection.execute(text("CREATE TABLE event (mine INTEGER)"))
        before = described(connection)
    with pytest.raises(StoreError, match="event"), opened(tmp_path, url):
        pass
    with connected(url) as connection:
        assert described(connection) == before
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0001"


def test_a_newer_database_is_refused(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url):
        pass
    with connected(url) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        before = described(connection), connection.execute(text("SELECT * FROM federation")).all()
    file = tmp_path / "umbel.sqlite"
    bytes_before = file.read_bytes() if file.exists() else b""
    with pytest.raises(NewerSchema, match="9999"), opened(tmp_path, url):
        pass
    assert (file.read_bytes() if file.exists() else b"") == bytes_before
    with connected(url) as connection:
        assert (described(connection), connection.execute(text("SELECT * FROM federation")).all()) == before


def test_tables_of_others_are_refused(url: str, tmp_path: Path) -> None:
    with connected(url) as connection:
        connection.execute(text("CREATE TABLE node (mine INTEGER)"))
    with pytest.raises(StoreError, match="is not a database of Umbel"), opened(tmp_path, url):
        pass

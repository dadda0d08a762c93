"""The writer: what waits is committed together, and what fails fails alone."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

from sqlalchemy import Connection

from tests.unit.store.sql.stores import busy, opened
from umbel.errors import NotThere, StoreError
from umbel.store.sql import ServerStore
from umbel.store.sql.people import note


def looked(connection: Connection, name: str) -> int:
    note(connection, 1.0, "anna", "looked", target=name, details={})
    return len(name)


def test_a_group_is_one_transaction(tmp_path: Path) -> None:
    transactions: list[str] = []
    with opened(tmp_path) as store:
        futures: list[Future[int]] = []
        with busy(store):
            for n in range(100):
                futures.append(store._write(lambda c, n=n: looked(c, "x" * n)))  # type: ignore[misc]
            store._writer._connection.connection.dbapi_connection.set_trace_callback(transactions.append)  # type: ignore[union-attr]
        assert [future.result() for future in futures] == list(range(100))
    assert transactions.count("COMMIT") <= 2  # that of the one that was held, perhaps, and that of the group


def test_few_intents_write() -> None:
    """Each is one transaction; who reads the store's methods can hold in mind what changes it."""
    found = {
        name: method.__annotations__.get("return", "") for name, method in vars(ServerStore).items() if callable(method)
    }
    writing = [name for name, returned in found.items() if returned.startswith("Future[") and name[0] != "_"]
    assert {"submit", "accept", "commit", "sweep"} <= {*writing}
    assert len(writing) <= 20


def test_what_fails_fails_alone(tmp_path: Path) -> None:
    def fail(connection: Connection, error: Exception) -> int:
        looked(connection, "gone")
        raise error

    def wrong(connection: Connection) -> int:
        looked(connection, "gone")
        return connection.exec_driver_sql("INSERT INTO audit VALUES (1)").rowcount

    with opened(tmp_path) as store:
        futures: list[Future[int]] = []
        with busy(store):
            for n in range(10):
                futures.append(store._write(lambda c, n=n: looked(c, str(n))))  # type: ignore[misc]
                futures.append(store._write(lambda c: fail(c, NotThere("x"))))
                futures.append(store._write(lambda c: fail(c, ZeroDivisionError("y"))))
                futures.append(store._write(wrong))
                futures.append(store._write(lambda c: looked(c, 5)))  # type: ignore[arg-type]
        kinds = [type(future.exception()) for future in futures]
        assert kinds[:4] == [type(None), NotThere, ZeroDivisionError, StoreError]
        assert [row.target for row in store.audited()] == [str(n) for n in range(10)]


def test_one_that_fails_on_its_own_leaves_nothing(tmp_path: Path) -> None:
    def fail(connection: Connection) -> int:
        looked(connection, "gone")
        raise NotThere("x")

    with opened(tmp_path) as store:
        with pytest.raises(NotThere):
            store._write(fail).result()
        assert store.audited() == []
        assert store._write(lambda c: looked(c, "x")).result() == 1


def test_if_the_commit_fails_all_of_the_group_are_told(tmp_path: Path) -> None:
    """A reference to nothing that is checked at the end only."""
    orphan = "INSERT INTO event (run, time, kind, content) VALUES ('nobody', 1, 'x', '{}')"

    def defer(connection: Connection) -> int:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        connection.exec_driver_sql(orphan)
        return 1

    with opened(tmp_path) as store:
        futures: list[Future[int]] = []
        with busy(store):
            futures.append(store._write(lambda c: looked(c, "before")))
            futures.append(store._write(defer))
        for future in futures:
            with pytest.raises(StoreError, match="FOREIGN KEY"):
                future.result()
        assert store.audited() == []
        assert store._write(lambda c: looked(c, "after")).result() == 5
        assert [row.target for row in store.audited()] == ["after"]


def test_what_nobody_waits_for_any_more_is_not_written(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        futures: list[Future[int]] = []
        with busy(store):
            futures.append(store._write(lambda c: looked(c, "x")))
            assert futures[0].cancel()
        store._write(lambda c: looked(c, "y")).result()
        assert [row.target for row in store.audited()] == ["y"]


def test_what_comes_after_the_commit_may_fail(tmp_path: Path) -> None:
    def fail(_: int) -> int:
        raise ZeroDivisionError

    with opened(tmp_path) as store:
        with pytest.raises(ZeroDivisionError):
            store._write(lambda c: looked(c, "kept"), fail).result()
        assert [row.target for row in store.audited()] == ["kept"]


def test_many_threads(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        threads = [
            threading.Thread(target=lambda n=n: [store.audit("anna", "looked", f"{n}/{i}").result() for i in range(20)])
            for n in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = [row.target for row in store.audited()]
    assert sorted(found) == sorted(f"{n}/{i}" for n in range(20) for i in range(20))
    for n in range(20):
        assert [name for name in found if name.startswith(f"{n}/")] == [f"{n}/{i}" for i in range(20)]

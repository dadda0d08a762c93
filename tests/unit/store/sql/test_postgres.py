"""A server's database in PostgreSQL: connections are lost, servers come and go."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")

from sqlalchemy import make_url

from tests.postgres import Cluster
from tests.unit.store.sql.stores import RUN, answer, opened, with_exchange
from umbel.errors import InUse, StoreError
from umbel.store.sql import ServerStore
from umbel.store.sql import postgres as backend
from umbel.store.sql.postgres import Postgres
from umbel.store.sql.reading import Reader

pytest_plugins = ("tests.postgres",)


def test_it_belongs_to_one_server(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path / "one", postgres_url), monkeypatch.context() as patch:
        patch.setattr(backend, "_PATIENCE", "10ms")  # its usual one is for a server that has just ended
        with pytest.raises(InUse, match="in use by another server"), opened(tmp_path / "two", postgres_url):
            pass
        with pytest.raises(InUse), opened(tmp_path / "one", postgres_url):
            pass
    with opened(tmp_path / "two", postgres_url) as store:
        assert store.runs() == []


def test_a_lost_connection_is_made_again(
    postgres_url: str, postgres: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "umbel"), opened(tmp_path, postgres_url) as store:
        with_exchange(store)
        for n in range(5):
            assert store.accept(RUN, 1, answer(f"a{n}")).result() == "accepted"
            assert postgres.cut() >= 1
            assert store.accept(RUN, 1, answer(f"b{n}")).result() == "accepted"
            assert len(store.answers(RUN, 1)) == 2 * (n + 1)
    said = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert said == ["database-away", "database-back"] * 5


def test_so_is_one_to_a_database_that_starts_again(postgres_url: str, postgres: Cluster, tmp_path: Path) -> None:
    with opened(tmp_path, postgres_url) as store:
        with_exchange(store)
        postgres.restart()
        futures = [store.accept(RUN, 1, answer(str(n))) for n in range(20)]
        assert {future.result() for future in futures} == {"accepted"}
    postgres.wait()


@pytest.mark.parametrize(("wanted", "found"), [("", "20000"), ("&tcp_user_timeout=9000", "9000")])
def test_that_its_machine_is_gone_is_noticed(postgres_url: str, tmp_path: Path, wanted: str, found: str) -> None:
    """Within seconds, or those that somebody wants."""
    with closing(Postgres(make_url(postgres_url + wanted), tmp_path)) as database:
        for connection in (database.claim(), database.reading.connect()):
            with connection:
                driver: Any = connection.connection.dbapi_connection
                assert driver.info.get_parameters()["tcp_user_timeout"] == found


def test_a_server_that_is_to_end_does_not_wait_for_it(postgres: Cluster, tmp_path: Path) -> None:
    own = Cluster(postgres.binaries)
    with opened(tmp_path, own.make()) as store:
        with_exchange(store)
        own.stop()
        waits = store.accept(RUN, 1, answer("a"))
        store.hurry()
        for future in (waits, store.accept(RUN, 1, answer("b"))):
            with pytest.raises(StoreError, match="check that the database runs"):
                future.result(timeout=15)  # half of what it would be tried for


def test_who_reads_waits_for_it_but_not_in_an_event_loop(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("umbel.store.sql.reading.time.sleep", slept.append)
    with closing(Postgres(make_url(postgres_url), tmp_path)) as database:

        def read() -> None:
            with pytest.raises(StoreError):
                Reader(database)(lambda c: c.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())"))

        async def in_loop() -> None:
            read()

        asyncio.run(in_loop())
        assert slept == [0.0]
        read()
        assert len(slept) > 3


def test_nothing_is_lost_or_doubled_while_connections_are_cut(
    postgres_url: str, postgres: Cluster, tmp_path: Path
) -> None:
    with opened(tmp_path, postgres_url) as store:
        with_exchange(store)
        end = threading.Event()

        def cut() -> None:
            while not end.wait(0.1):
                postgres.cut()

        thread = threading.Thread(target=cut)
        thread.start()
        try:
            events = [store.event(RUN, "log", {"n": n}) for n in range(60) if not pause(store)]
            numbers = [event.result() for event in events]
        finally:
            end.set()
            thread.join()
        assert [event.content["n"] for event in store.events(RUN)] == list(range(60))
        assert [event.number for event in store.events(RUN)] == numbers


def pause(store: ServerStore) -> bool:
    """Let what waits be written, so that there are many transactions."""
    store.audit("anna", "looked", "x").result()
    return False


def test_a_transaction_whose_end_was_not_heard_of_is_not_made_twice(
    postgres_url: str, postgres: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost after the commit and before its answer."""
    with opened(tmp_path, postgres_url) as store:
        with_exchange(store)
        moment = backend.Postgres.moment

        def commit_and_cut(self: backend.Postgres, connection: object) -> str:
            monkeypatch.setattr(backend.Postgres, "moment", moment)
            found = moment(self, connection)  # type: ignore[arg-type]
            connection.exec_driver_sql("COMMIT")  # type: ignore[attr-defined]
            postgres.cut()
            return found

        monkeypatch.setattr(backend.Postgres, "moment", commit_and_cut)
        number = store.event(RUN, "log", {"n": 1}).result()
        assert [event.number for event in store.events(RUN)] == [number]


def test_a_server_that_lost_its_database_to_another_writes_no_more(
    postgres_url: str, postgres: Cluster, tmp_path: Path
) -> None:
    with ExitStack() as both:
        first = both.enter_context(opened(tmp_path / "one", postgres_url))
        with_exchange(first)
        with closing(postgres.connect(postgres_url.partition("@/")[2].partition("?")[0])) as connection:
            connection.execute("UPDATE federation SET opened = opened + 1")  # as one that came and went
        postgres.cut()
        for _ in range(2):
            with pytest.raises(InUse, match="was opened by another server"):
                first.accept(RUN, 1, answer("a")).result()
        assert isinstance(first.broken, InUse)
        assert first.answers(RUN, 1) == []


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_all_text(encoding: str, postgres: Cluster, tmp_path: Path) -> None:
    with closing(postgres.connect()) as connection:
        connection.execute(f"CREATE DATABASE {encoding} ENCODING '{encoding}' TEMPLATE template0")
    url = f"postgresql://umbel@/{encoding.lower()}?host={postgres.place}"
    with pytest.raises(StoreError, match=f"has the encoding {encoding}") as refused, opened(tmp_path, url):
        pass
    assert "ENCODING 'UTF8'" in refused.value.advice


def test_a_database_that_can_only_be_read(postgres_url: str, postgres: Cluster, tmp_path: Path) -> None:
    name = postgres_url.partition("@/")[2].partition("?")[0]
    with closing(postgres.connect()) as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(StoreError, match="can only be read") as refused, opened(tmp_path, postgres_url):
        pass
    assert "standby" in refused.value.advice


def test_one_that_can_only_be_read_is_asked_for_another_connection(
    postgres_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another has taken over from it, and answers at the same address."""
    with opened(tmp_path, postgres_url) as store:
        store._write(lambda c: c.exec_driver_sql("SET default_transaction_read_only = on")).result()
        store.audit("anna", "looked", "x").result()
        assert [row.target for row in store.audited()] == ["x"]
    assert "database-away" in caplog.text
    assert "can only be read" in caplog.text


def test_what_takes_longer_than_the_database_lets_others_take(
    postgres_url: str, postgres: Cluster, tmp_path: Path
) -> None:
    name = postgres_url.partition("@/")[2].partition("?")[0]
    with closing(postgres.connect()) as connection:
        connection.execute(f"ALTER DATABASE {name} SET statement_timeout = '300ms'")
    with opened(tmp_path, postgres_url) as store:
        store._write(lambda c: c.exec_driver_sql("SELECT pg_sleep(0.4)")).result()


def test_an_address_where_nobody_is(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match="postgresql") as refused,
        opened(tmp_path, f"postgresql://me:secret@/x?host={tmp_path}"),
    ):
        pass
    assert "secret" not in str(refused.value)

"""The server's store passes its suite in both databases, and a run's part of it that of the engine."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("sqlalchemy")

from tests.postgres import Cluster
from umbel.engine.ports import Store
from umbel.store.sql import RunRow, RunStore, ServerStore
from umbel.testing import check_server_store, check_store

pytest_plugins = ("tests.postgres",)
RUN = "a" * 32


class Servers:
    """Stores that are closed when the test ends."""

    def __init__(self, directory: Path, make_url: Callable[[Path], str], opened: ExitStack) -> None:
        self._directory, self._make_url, self._opened = directory, make_url, opened
        self._numbers = itertools.count()
        self._places: dict[int, tuple[str, Path]] = {}
        self._runs: dict[int, ServerStore] = {}

    def make(self) -> ServerStore:
        place = self._directory / str(next(self._numbers))
        return self._open(self._make_url(place), place)

    def reopen(self, store: ServerStore) -> ServerStore:
        store.close()
        return self._open(*self._places[id(store)])

    def _open(self, url: str, place: Path) -> ServerStore:
        store = ServerStore(url, place, now=time.time)
        self._opened.callback(store.close)
        self._places[id(store)] = url, place
        return store

    def make_run(self) -> RunStore:
        store = self.make()
        store.submit(RunRow(id=RUN, key="k", name="a", owner="anna")).result()
        return self._run_of(store)

    def reopen_run(self, store: Store) -> RunStore:
        run = cast(RunStore, store)
        run.close()
        return self._run_of(self.reopen(self._runs[id(run)]))

    def _run_of(self, store: ServerStore) -> RunStore:
        run = RunStore(store, RUN)
        self._opened.callback(run.close)
        self._runs[id(run)] = store
        return run


def in_sqlite(place: Path) -> str:
    return f"sqlite:///{place}/umbel.sqlite"


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Servers]:
    with ExitStack() as opened:
        yield Servers(tmp_path, in_sqlite, opened)


@pytest.fixture
def in_postgres(tmp_path: Path, postgres: Cluster) -> Iterator[Servers]:
    with ExitStack() as opened:
        yield Servers(tmp_path, lambda _: postgres.make(), opened)


def test_sqlite_passes(sqlite: Servers) -> None:
    check_server_store(sqlite.make, reopen=sqlite.reopen)


def test_postgresql_passes(in_postgres: Servers) -> None:
    check_server_store(in_postgres.make, reopen=in_postgres.reopen)


def test_a_run_in_sqlite_passes(sqlite: Servers) -> None:
    check_store(sqlite.make_run, reopen=sqlite.reopen_run)


def test_a_run_in_postgresql_passes(in_postgres: Servers) -> None:
    check_store(in_postgres.make_run, reopen=in_postgres.reopen_run)


# --- broken ones -----------------------------------------------------------------------------------


class Broken:
    """A store that is right; those below are wrong in one thing each."""

    def __init__(self, inner: ServerStore) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


class AnybodyEnrols(Broken):
    def enrol(self, *given: Any) -> Any:
        return self.inner.enrol(b"t", given[1])


class AcceptsTwice(Broken):
    def accept(self, *given: Any) -> Any:
        verdict = self.inner.accept(*given).result()
        return done("accepted" if verdict == "repeated" else verdict)


class NeverLate(Broken):
    def accept(self, *given: Any) -> Any:
        verdict = self.inner.accept(*given).result()
        return done("accepted" if verdict == "late" else verdict)


class LosesAnswers(Broken):
    def answers(self, run: str, sequence: int) -> Any:
        return self.inner.answers(run, sequence)[:-1]


class NewestAnswerFirst(Broken):
    def answers(self, run: str, sequence: int) -> Any:
        return self.inner.answers(run, sequence)[::-1]


class ForgetsFailures(Broken):
    def accept(self, run: str, sequence: int, answer: Any, blobs: Any = ()) -> Any:
        return done("accepted") if answer.kind == "failure" else self.inner.accept(run, sequence, answer, blobs)


class KeepsOtherQuestions(Broken):
    def open_exchange(self, run: str, exchange: Any, blobs: Any = ()) -> Any:
        before = next(iter(self.inner.unclosed(run)), None)
        if before is not None and before.sequence == exchange.sequence:
            exchange = replace(exchange, digest=before.digest)
        return self.inner.open_exchange(run, exchange, blobs)


class DropsEarlierExchanges(Broken):
    def unclosed(self, run: str) -> Any:
        return self.inner.unclosed(run)[-1:]


class FailsAgain(Broken):
    def set_status(self, run: str, status: Any, *given: Any, **more: Any) -> Any:
        return self.inner.set_status(run, "stopped" if status == "failed" else status, *given, **more)


class LosesStates(Broken):
    def states(self, *_: Any) -> Any:
        return {}


class KeepsRecords(Broken):
    def __init__(self, inner: ServerStore) -> None:
        super().__init__(inner)
        self.kept: list[Any] = []

    def saved(self, run: str) -> Any:
        commits, records = self.inner.saved(run)
        self.kept = records or self.kept
        return commits, self.kept


class KeepsNoCommits(Broken):
    def commit(self, *_: Any, **__: Any) -> Any:
        return done(None)


class RunsTwice(Broken):
    def submit(self, run: Any, blobs: Any = ()) -> Any:
        return self.inner.submit(replace(run, key=run.id), blobs)


class SaysNothing(Broken):
    def audited(self, *_: Any) -> Any:
        return []


class NeverSweeps(Broken):
    def sweep(self, *_: Any) -> Any:
        return done(None)


class SweepsAtOnce(Broken):
    def sweep(self, *_: Any) -> Any:
        return self.inner.sweep(-1.0)


class AllTokensAreGood(Broken):
    def token(self, secret: bytes) -> Any:
        return next((t for t in self.inner.tokens() if t.secret == secret), None)


BROKEN = list(Broken.__subclasses__())


def test_the_right_one_among_the_broken_passes(sqlite: Servers) -> None:
    check_server_store(cast(Any, lambda: Broken(sqlite.make())))


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_one_is_rejected(kind: type[Broken], sqlite: Servers) -> None:
    with pytest.raises(AssertionError, match="a server's store must"):
        check_server_store(cast(Any, lambda: kind(sqlite.make())))


def test_one_that_forgets_is_rejected(sqlite: Servers) -> None:
    with pytest.raises(AssertionError, match="a server's store must"):
        check_server_store(sqlite.make, reopen=lambda _: sqlite.make())

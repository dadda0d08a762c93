"""Every store passes the suite of umbel.testing; broken ones do not."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from umbel.engine.history import Row
from umbel.engine.ports import Commit, Record, Store
from umbel.store.files import FileStore
from umbel.store.memory import MemoryStore
from umbel.testing import check_store


class Directories:
    """Run directories that go when the test ends; a store that is reopened is closed as if its process was killed."""

    def __init__(self, opened: ExitStack) -> None:
        self._opened = opened

    def make(self) -> FileStore:
        return self._open(Path(self._opened.enter_context(tempfile.TemporaryDirectory())))

    def reopen(self, store: Store) -> FileStore:
        before = cast(FileStore, store)
        before.close()
        return self._open(before.directory)

    def _open(self, directory: Path) -> FileStore:
        store = FileStore(directory)
        self._opened.callback(_close, store)
        if store.recipe is None:
            store.begin({"umbel": "0"}, None)
        return store


def _close(store: FileStore) -> None:
    store.close()


@pytest.fixture
def directories() -> Iterator[Directories]:
    with ExitStack() as opened:
        yield Directories(opened)


def test_the_store_in_memory_passes() -> None:
    check_store(MemoryStore)


def test_the_store_of_a_run_directory_passes(directories: Directories) -> None:
    check_store(directories.make, reopen=directories.reopen)


def test_in_memory_who_was_counted_does_not_grow_with_the_rounds() -> None:
    store, clients = MemoryStore(), [str(i) for i in range(50)]
    for number in range(1, 21):
        store.commit(Commit(rows=(Row(round=number),), state=None, counted=dict.fromkeys(clients, 1)))
    *before, last = store.commits()
    assert not any(commit.counted for commit in before)
    assert last.counted == dict.fromkeys(clients, 20)


# --- broken ones -----------------------------------------------------------------------------------


class Broken:
    """A store that is right; those below are wrong in one thing each."""

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.given: list[Commit] = []

    def commits(self) -> Sequence[Commit]:
        return self.inner.commits()

    def records(self) -> Sequence[Record]:
        return self.inner.records()

    def record(self, record: Record) -> None:
        self.inner.record(record)

    def mark(self, sequence: int) -> None:
        self.inner.mark(sequence)

    def commit(self, commit: Commit) -> None:
        self.given.append(commit)
        self.inner.commit(commit)


class NeverNew(Broken):
    def records(self) -> Sequence[Record]:
        return self.inner.records() or [cast(Record, None)]


class LastCommitOnly(Broken):
    def commits(self) -> Sequence[Commit]:
        return self.inner.commits()[-1:]


class NewestFirst(Broken):
    def commits(self) -> Sequence[Commit]:
        return self.inner.commits()[::-1]


class KeepsAllStates(Broken):
    def commits(self) -> Sequence[Commit]:
        return [replace(c, state=g.state) for c, g in zip(self.inner.commits(), self.given, strict=False)]


class Doubles(Broken):
    def commits(self) -> Sequence[Commit]:
        *before, last = [*self.given] or [cast(Commit, None)]
        light = [replace(c, state=None, transforms={}, best=None) for c in before]
        return [*light, last] if last else []


class LosesRecords(Broken):
    def records(self) -> Sequence[Record]:
        return ()


class KeepsLastRecordOnly(Broken):
    def records(self) -> Sequence[Record]:
        return self.inner.records()[-1:]


class KeepsRecordsForEver(Broken):
    def __init__(self) -> None:
        super().__init__()
        self.all: list[Record] = []

    def record(self, record: Record) -> None:
        self.all.append(record)

    def records(self) -> Sequence[Record]:
        return self.all


def loses(**changes: Any) -> type[Broken]:
    """A store that does not keep a field of a commit."""

    class Loses(Broken):
        def commit(self, commit: Commit) -> None:
            super().commit(replace(commit, **changes))

    return Loses


class CountsLastCommitOnly(Broken):
    def commits(self) -> Sequence[Commit]:
        *before, last = self.inner.commits() or [cast(Commit, None)]
        return [*before, replace(last, counted=self.given[-1].counted)] if last else []


class ReadsTuplesAsLists(Broken):
    def commit(self, commit: Commit) -> None:
        state = {k: list(v) if isinstance(v, tuple) else v for k, v in commit.state.items()}
        super().commit(replace(commit, state=state))


class LosesOldEvaluations(Broken):
    def commits(self) -> Sequence[Commit]:
        *before, last = self.inner.commits() or [cast(Commit, None)]
        return [*(replace(c, clients={}) for c in before), last] if last else []


BROKEN: dict[str, Callable[[], Broken]] = {
    "never new": NeverNew,
    "last commit only": LastCommitOnly,
    "newest first": NewestFirst,
    "keeps all states": KeepsAllStates,
    "doubles a commit": Doubles,
    "loses records": LosesRecords,
    "keeps the last record only": KeepsLastRecordOnly,
    "keeps records for ever": KeepsRecordsForEver,
    "loses failures": loses(failures=()),
    "loses who was counted": loses(counted={}),
    "counts the last commit only": CountsLastCommitOnly,
    "loses the number of the exchange": loses(sequence=0),
    "loses the state": loses(state=None),
    "loses the transforms": loses(transforms={}),
    "loses what was asked first": loses(opening=None),
    "loses single clients' metrics": loses(clients={}),
    "loses old evaluations": LosesOldEvaluations,
    "reads tuples as lists": ReadsTuplesAsLists,
}


def test_the_right_one_among_the_broken_passes() -> None:
    check_store(Broken)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_store_is_rejected(name: str) -> None:
    with pytest.raises(AssertionError, match="a store must"):
        check_store(BROKEN[name])


def empty(store: Store) -> Store:
    return Broken()


def without_last_commit(store: Store) -> Store:
    after = Broken()
    for commit in cast(Broken, store).given[:-1]:
        after.commit(commit)
    for record in store.records():
        after.record(record)
    return after


def without_records(store: Store) -> Store:
    after = Broken()
    for commit in cast(Broken, store).given:
        after.commit(commit)
    return after


@pytest.mark.parametrize("reopen", [empty, without_last_commit, without_records])
def test_a_store_that_does_not_outlive_its_process_is_rejected(reopen: Callable[[Store], Store]) -> None:
    with pytest.raises(AssertionError, match="a store must"):
        check_store(Broken, reopen=reopen)

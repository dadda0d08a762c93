"""What `FileStore` does beyond the suite for all stores, which tests/conformance runs."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from umbel.arrays import Arrays
from umbel.digest import digest_of
from umbel.engine.history import Row
from umbel.engine.ports import Commit, Record
from umbel.engine.question import Answer
from umbel.errors import CorruptFile, DiskFull, InUse
from umbel.store.files import FileStore

RECIPE = {"umbel": "1", "recipe": {"seed": 1}}


def model(value: float) -> Arrays:
    return Arrays({"w": np.full(50, value)})


def commit(number: int, **changes: Any) -> Commit:
    given = {"rows": (Row(round=number),), "state": {"model": model(number)}, "sequence": number}
    return Commit(**{**given, **changes})


def record(number: int, value: float = 0.5) -> Record:
    return Record(round=number, call=1, digest={}, sequence=number, answer=Answer(value=model(value)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FileStore]:
    opened = FileStore(tmp_path)
    opened.begin(RECIPE, model(0))
    yield opened
    opened.close()


def again(store: FileStore) -> FileStore:
    """The store that the next process finds."""
    store.close()
    return FileStore(store.directory)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_blobs_are_those_of_the_last_two_commits(store: FileStore) -> None:
    for number in range(1, 51):
        store.record(record(number, number + 0.5))
        store.commit(commit(number, best=model(7) if number == 7 else None))
        assert store.done == number  # it is written
        kept = {model(n).digest() for n in (number - 1, number, 7 if number >= 7 else number) if n}
        assert names(store.directory / "blobs") == {f"{digest}.safetensors" for digest in kept}
    assert len(names(store.directory)) == 7  # without clients' states and a final model


def test_what_is_asked_first_is_kept_for_good(store: FileStore) -> None:
    store.commit(commit(1, opening=(record(1, 0.25),)))
    for number in range(2, 9):
        store.commit(commit(number))
    after = again(store)
    opening = after.commits()[0].opening
    assert opening is not None
    assert opening[0].answer.value == model(0.25)
    after.close()


def test_the_best_model_is_that_of_the_journal(store: FileStore) -> None:
    store.commit(commit(1, best=model(1)))
    store.commit(commit(2, best=model(2)))
    store.commit(commit(3))
    model(9).save(store.directory / "best.safetensors")  # of a round that was not committed, for example
    after = again(store)
    assert after.best() == model(2)
    assert Arrays.load(store.directory / "best.safetensors") == model(2)
    after.close()


def test_an_end_is_that_of_so_many_rounds(store: FileStore) -> None:
    assert store.ended is None
    store.commit(commit(1))
    store.finish("finished", {"model": model(1)}, rounds=1)
    after = again(store)
    assert after.ended is not None
    assert (after.ended.status, after.ended.rounds) == ("finished", 1)
    assert Arrays.load(store.directory / "model.safetensors") == model(1)
    after.record(record(2))  # it goes on
    assert after.ended is None
    after = again(after)
    assert after.ended is None
    assert [r.round for r in after.records()] == [2]
    after.close()


def test_a_run_may_end_without_a_commit(store: FileStore) -> None:
    store.record(record(1))
    store.finish("finished", None, rounds=None)
    after = again(store)
    assert after.ended is not None
    assert list(after.records()) == []
    assert list(after.commits()) == []
    after.close()


def test_records_can_be_forgotten(store: FileStore) -> None:
    store.client_states.write(1, {"a": {"n": 1}})
    store.commit(commit(1))
    store.client_states.write(2, {"a": {"n": 2}})
    store.record(record(2))
    store.forget_records()
    assert list(store.records()) == []
    assert store.client_states.read("a") == {"n": 1}
    after = again(store)
    assert list(after.records()) == []
    after.close()


def test_states_of_an_exchange_that_was_not_recorded_are_dropped(store: FileStore) -> None:
    store.client_states.write(1, {"a": {"n": 1}})
    store.record(record(1))
    store.client_states.write(2, {"a": {"n": 2}})
    after = again(store)
    assert after.client_states.read("a") == {"n": 1}
    after.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While it is closed the thread that writes stops before each `os.fsync`."""
    opened, real, main = threading.Event(), os.fsync, threading.current_thread()

    def fsync(file: int) -> None:
        if threading.current_thread() is not main:
            opened.wait()
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    yield opened
    opened.set()


def test_a_commit_is_written_while_the_run_goes_on(store: FileStore, gate: threading.Event, tmp_path: Path) -> None:
    store.client_states.write(1, {"a": {"n": 1}})
    store.commit(commit(1))
    store.client_states.write(2, {"a": {"n": 2}})
    store.mark(2)
    shutil.copytree(store.directory, tmp_path / "killed")
    gate.set()
    for directory, done, state in ((tmp_path / "killed", 0, {}), (store.directory, 1, {"n": 1})):
        store.close()
        found = FileStore(directory)
        assert (found.done, found.client_states.read("a")) == (done, state)
        found.close()


def test_what_comes_next_waits_for_the_commit(store: FileStore, gate: threading.Event) -> None:
    store.commit(commit(1))
    threading.Timer(0.1, gate.set).start()
    store.record(record(2))
    assert [json.loads(line[9:])["round"] for line in (store.directory / "journal").read_bytes().splitlines()] == [1]
    assert [r.round for r in store.records()] == [2]


def test_writing_a_record_is_broken_off_when_its_round_commits(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def never_ends(data: memoryview, between: Callable[[], object]) -> str:
        monkeypatch.undo()
        begun.set()
        while True:
            between()

    monkeypatch.setattr("umbel.arrays.digest_of", never_ends)
    store.record(record(1))
    assert begun.wait(60)
    store.commit(commit(1))
    assert store.done == 1
    assert names(store.directory / "blobs") == {f"{model(1).digest()}.safetensors"}


def test_a_record_is_not_even_begun_when_its_round_commits_at_once(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[int] = []

    def counted(data: memoryview, between: Callable[[], object]) -> bytes:
        hashed.append(len(data))
        return digest_of(data, between)

    monkeypatch.setattr("umbel.store.files._SOON", 3600)
    monkeypatch.setattr("umbel.arrays.digest_of", counted)
    store.record(record(1))
    store.commit(commit(1))
    assert store.done == 1
    assert len(hashed) == 1  # the commit's
    assert store.records() == []


def test_after_an_error_nothing_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore(tmp_path)
    store.begin(RECIPE, model(0))
    store.commit(commit(1))
    assert store.done == 1  # it is written

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        store.commit(commit(2))
        with pytest.raises(DiskFull):
            store.record(record(3))
    with pytest.raises(DiskFull):  # though there is room again: round 2 would be missing
        store.commit(commit(3))
    with pytest.raises(DiskFull):
        store.close()
    after = FileStore(store.directory)
    assert after.done == 1
    after.close()


def test_a_marked_commit_has_the_states_of_its_time(store: FileStore) -> None:
    store.client_states.write(1, {"a": {"n": 1}})
    store.mark(1)
    store.client_states.write(2, {"a": {"n": 2}})
    store.client_states.write(3, {"a": {"n": 3}})
    store.commit(commit(1))
    for _ in range(2):
        store = again(store)
        assert store.client_states.read("a") == {"n": 1}
    store.close()


def test_states_that_are_gone_are_noticed(store: FileStore) -> None:
    store.client_states.write(1, {"a": {"n": 1}})
    store.commit(commit(1))
    store.close()
    (store.directory / "clients.sqlite").unlink()
    with pytest.raises(CorruptFile, match=r"clients\.sqlite is gone"):
        FileStore(store.directory)


def test_states_that_are_older_than_the_journal_are_noticed(store: FileStore) -> None:
    store.client_states.write(1, {"a": {"n": 1}})
    store = again(store)  # closed, so that the file is whole
    old = (store.directory / "clients.sqlite").read_bytes()
    store.client_states.write(2, {"a": {"n": 2}})
    store.commit(commit(1, sequence=2))
    store.close()
    (store.directory / "clients.sqlite").write_bytes(old)
    with pytest.raises(CorruptFile, match=r"clients\.sqlite is older than the journal"):
        FileStore(store.directory)


@pytest.mark.parametrize("ending", ["record", "commit"])
def test_states_of_another_run_are_noticed(store: FileStore, tmp_path: Path, ending: str) -> None:
    other = FileStore(tmp_path / "other")
    other.begin(RECIPE, model(0))
    for each, n in ((store, 1), (other, 2)):
        each.client_states.write(1, {"a": {"n": n}})
        each.record(record(1))
        if ending != "record":
            each.commit(commit(1))
        each.close()
    (other.directory / "clients.sqlite").replace(store.directory / "clients.sqlite")
    with pytest.raises(CorruptFile, match=r"clients\.sqlite is that of another run\n.*restore"):
        FileStore(store.directory)


def test_a_run_that_begins_again_with_another_recipe_keeps_its_states(store: FileStore) -> None:
    store.client_states.write(1, {"a": {"n": 1}})  # killed before the record
    for _ in range(2):
        store = again(store)
        store.begin(RECIPE, model(1))
    store = again(store)  # and killed before the first exchange
    store.client_states.write(1, {"a": {"n": 2}})
    store.record(record(1))
    store.change(RECIPE)
    store = again(store)
    assert store.client_states.read("a") == {"n": 2}
    store.close()


def test_a_recipe_that_is_gone_is_noticed(store: FileStore) -> None:
    store.commit(commit(1))
    assert store.done == 1  # it is written
    (store.directory / "run.json").unlink()
    with pytest.raises(CorruptFile, match=r"run\.json is gone"):
        _ = store.recipe


def test_the_initial_model_is_checked(store: FileStore) -> None:
    path = store.directory / "initial.safetensors"
    assert store.initial(None) == model(0)
    model(3).save(path)
    with pytest.raises(CorruptFile, match=r"initial\.safetensors is damaged"):
        store.initial(model(3))
    path.unlink()
    with pytest.raises(CorruptFile, match=r"initial\.safetensors is gone"):
        store.initial(None)
    assert store.initial(model(0)) == model(0)
    assert Arrays.load(path) == model(0)


def test_a_run_may_have_no_initial_model(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.begin(RECIPE, None)
    assert store.initial(model(1)) is None
    store.close()


def test_leftovers_are_removed(store: FileStore) -> None:
    store.close()
    for name in ("run.json.tmp", "best.safetensors.tmp", "mine.tmp"):
        (store.directory / name).write_text("")
    FileStore(store.directory).close()
    assert {name for name in names(store.directory) if name.endswith(".tmp")} == {"mine.tmp"}


def test_one_at_a_time(store: FileStore) -> None:
    with pytest.raises(InUse, match="is in use by another run"):
        FileStore(store.directory)
    again(store).close()


def test_a_store_that_cannot_be_opened_lets_go(store: FileStore) -> None:
    store.client_states.write(1, {"a": {"n": 1}})
    store.close()
    path = store.directory / "clients.sqlite"
    content = path.read_bytes()
    path.write_bytes(b"something else")
    with pytest.raises(CorruptFile):
        FileStore(store.directory)
    path.write_bytes(content)
    FileStore(store.directory).close()

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.arrays import Arrays
from umbel.errors import CorruptFile, StoreError
from umbel.store.client_states import FileClientStates

CLIENTS = ["a", "b", "c"]
State = dict[str, Any]


def plain(state: Mapping[str, Any]) -> State:
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in state.items()}


class Model:
    """What `FileClientStates` promises, in the simplest words; and when the store tells it what."""

    def __init__(self) -> None:
        self.log: list[tuple[int, dict[str, State]]] = []
        self.sequence = 0
        self.commits: list[int] = []
        self.records: list[int] = []

    @property
    def points(self) -> list[int]:
        start = [] if len(self.commits) > 1 else [0]
        return [*start, *self.commits[-2:], *self.records]

    def read(self, client: str) -> State:
        return next((states[client] for _, states in reversed(self.log) if client in states), {})

    def go_back(self, sequence: int) -> None:
        self.log = [(number, states) for number, states in self.log if number <= sequence]
        self.records = [number for number in self.records if number <= sequence]
        self.commits = [number for number in self.commits[-2:] if number <= sequence]  # no way back beyond these
        self.sequence = sequence


@settings(max_examples=60)
@given(st.data())
def test_any_point_can_be_gone_back_to(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "clients.sqlite"
        states, model = FileClientStates(path), Model()
        try:  # Hypothesis may end an example anywhere
            for _ in range(data.draw(st.integers(1, 25))):
                match data.draw(st.sampled_from(["write", "write", "record", "commit", "reopen", "back"])):
                    case "write":
                        model.sequence += 1
                        who = data.draw(st.sets(st.sampled_from(CLIENTS), min_size=1))
                        new = {c: {"n": model.sequence, "x": np.full(2, model.sequence)} for c in sorted(who)}
                        states.write(model.sequence, new)
                        model.log.append((model.sequence, {c: plain(s) for c, s in new.items()}))
                    case "record":
                        model.records.append(model.sequence)
                    case "commit" if model.sequence not in model.commits:
                        model.commits.append(model.sequence)
                        model.records.clear()
                    case "reopen":
                        states.close()
                        states = FileClientStates(path)
                    case "back":  # to the last commit, the one before, or an exchange since
                        model.go_back(data.draw(st.sampled_from(model.points)))
                        states.go_back(model.sequence)
                states.points = model.points
                assert {c: plain(states.read(c)) for c in CLIENTS} == {c: model.read(c) for c in CLIENTS}
        finally:
            states.close()


def test_there_is_no_way_back_beyond_what_was_kept_when_it_was_gone_back_once(tmp_path: Path) -> None:
    states = FileClientStates(tmp_path / "clients.sqlite")
    for number in range(1, 5):
        states.write(number, {"a": {"n": number}})
        states.points = [number - 1, number]
    states.write(5, {"a": {"n": 5}})  # only 3 and 4 can be gone back to now
    states.go_back(3)
    states.points = [2, 3]
    states.write(4, {"a": {"n": 40}})
    with pytest.raises(CorruptFile, match="no longer holds the states of that time"):
        states.go_back(2)
    states.close()


def test_old_versions_are_removed(tmp_path: Path) -> None:
    states = FileClientStates(tmp_path / "clients.sqlite")
    for number in range(1, 60):
        states.write(number, {"a": {"x": Arrays({"w": np.zeros(10)})}})
        states.points = [number - 1, number]
    states.close()
    with sqlite3.connect(tmp_path / "clients.sqlite") as db:
        assert db.execute("SELECT count(*) FROM state").fetchone() == (3,)
        assert db.execute("SELECT count(*) FROM arrays").fetchone() == (3,)
    db.close()


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    states = FileClientStates(tmp_path / "clients.sqlite")
    state = {"n": 3, "f": 0.1, "s": "ä", "b": b"\xff", "none": None, "large": np.arange(5000.0), "small": np.eye(2)}
    states.write(1, {"client one": {**state, "arrays": Arrays({"w": np.ones(3, np.float32)})}})
    found = dict(states.read("client one"))
    states.close()
    assert found.pop("arrays") == Arrays({"w": np.ones(3, np.float32)})
    for name, value in state.items():
        np.testing.assert_array_equal(found[name], value)
    assert found["large"].flags.writeable
    assert found.keys() == state.keys()


def test_no_file_is_made_until_there_is_a_state(tmp_path: Path) -> None:
    states = FileClientStates(tmp_path / "clients.sqlite")
    assert states.read("a") == {}
    states.go_back(0)
    states.close()
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    states = FileClientStates(tmp_path / "clients.sqlite")
    states.write(1, {"a": {"n": 1}})
    with pytest.raises(ValueError, match=r"the state of client 'b'\['what'\] is a object"):
        states.write(2, {"a": {"n": 2}, "b": {"what": object()}})
    assert states.read("a") == {"n": 1}
    assert states.written == 1
    states.write(2, {"a": {"n": 2}})
    states.close()
    again = FileClientStates(tmp_path / "clients.sqlite")
    assert again.written == 2
    again.close()


def test_it_says_when_it_cannot_go_back(tmp_path: Path) -> None:
    states = FileClientStates(tmp_path / "clients.sqlite")
    for number in range(1, 9):
        states.write(number, {"a": {"n": number}})
        states.points = [number - 1, number]
    with pytest.raises(CorruptFile, match="newer than the journal"):
        states.go_back(3)
    states.go_back(0)  # to the start one can always go
    assert states.read("a") == {}
    states.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written") / "clients.sqlite"
    states = FileClientStates(path)
    states.points = [0]
    for number in range(1, 4):
        states.write(number, {c: {"n": number, "x": np.full(600, number)} for c in CLIENTS})
    states.close()
    return path


@settings(max_examples=150)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_damage_is_noticed_or_does_not_matter(written: Path, place: float, flip: int) -> None:
    content = bytearray(written.read_bytes())
    content[int(place * len(content))] ^= flip
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "clients.sqlite"
        path.write_bytes(content)
        found: dict[str, State] = {}
        try:
            states = FileClientStates(path)
        except StoreError as error:
            assert "clients.sqlite" in str(error)
            return
        try:
            written_then = states.written
            found = {c: plain(states.read(c)) for c in CLIENTS}
        except StoreError as error:
            assert "clients.sqlite" in str(error)
            return
        finally:
            states.close()
        # a lower number is noticed by the journal, which knows it, too
        assert written_then < 3 or found == {c: {"n": 3, "x": [3] * 600} for c in CLIENTS}


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\x00" + b"\xff" * 200])
def test_something_else_in_its_place_is_damage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clients.sqlite").write_bytes(content)
    with pytest.raises(CorruptFile, match=r"clients\.sqlite is damaged"):
        FileClientStates(tmp_path / "clients.sqlite")


def test_a_directory_in_its_place_is_an_error_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "clients.sqlite").mkdir()
    with pytest.raises(StoreError, match=r"clients\.sqlite"):
        FileClientStates(tmp_path / "clients.sqlite")

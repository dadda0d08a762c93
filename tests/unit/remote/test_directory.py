from __future__ import annotations

from pathlib import Path

import pytest

from umbel.errors import CorruptFile, InUse, RecipeChanged, UsageError
from umbel.remote.directory import FILE, RunDirectory

RECIPE = {"recipe": {"seed": 1, "strategy": "a"}}


def test_a_directory_keeps_the_key_of_its_run(tmp_path: Path) -> None:
    directory = RunDirectory.open(tmp_path / "run")
    assert directory.seed is None
    key = directory.begin(RECIPE, seed=1, server="umbel://a:1")
    directory.is_run("ab" * 16)
    directory.release()
    again = RunDirectory.open(tmp_path / "run")
    assert again.seed == 1
    assert again.begin(RECIPE, seed=1, server="umbel://a:1") == key
    assert again.content["run"] == "ab" * 16


def test_one_process_at_a_time_works_in_a_directory(tmp_path: Path) -> None:
    first, second = (RunDirectory.open(tmp_path / "run") for _ in range(2))
    key = first.begin(RECIPE, seed=1, server="umbel://a:1")
    with pytest.raises(InUse, match="is in use by another run"):
        second.begin(RECIPE, seed=1, server="umbel://a:1")
    assert RunDirectory.open(tmp_path / "run").content["key"] == key, "anybody may look"
    first.release()
    assert second.begin(RECIPE, seed=1, server="umbel://a:1") == key
    second.release()


def test_another_run_or_server_is_refused(tmp_path: Path) -> None:
    directory = RunDirectory.open(tmp_path / "run")
    directory.begin(RECIPE, seed=1, server="umbel://a:1")
    other = {"recipe": {"seed": 1, "strategy": "b"}}
    with pytest.raises(RecipeChanged, match="strategy: 'a' before, 'b' now"):
        directory.begin(other, seed=1, server="umbel://a:1")
    with pytest.raises(RecipeChanged, match="server: "):
        directory.begin(RECIPE, seed=1, server="umbel://b:1")
    directory.release()


def test_fewer_rounds_than_are_done_are_refused(tmp_path: Path) -> None:
    directory = RunDirectory.open(tmp_path / "run")
    for asked in (None, 2, 3):
        directory.check_rounds(2, asked)
    with pytest.raises(RecipeChanged, match="rounds: 3 are done, 2 are asked for now") as changed:
        directory.check_rounds(3, 2)
    assert list(changed.value.differences) == ["rounds: 3 are done, 2 are asked for now"]


def test_what_is_no_run_of_a_server_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UsageError, match="a simulated run"):
        RunDirectory.open(tmp_path)
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(CorruptFile):
        RunDirectory.open(tmp_path)

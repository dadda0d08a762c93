"""Killed at any moment and started again until it ends, a run has the bits of one that nobody killed.

So it is with Ctrl-C. The moments are drawn among all that a process comes through: each line of the parts that keep
the run, the middle of each write, each call to the system and to SQLite, and kills from outside. With some the power
fails, too, and the disk forgets what was not synchronised. See resumable.py and power_loss.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

PROGRAM = Path(__file__).with_name("resumable.py")
NEVER = 10**9
CAN_LOSE_POWER = Path("/proc/self/fd").is_dir()  # where power_loss.py looks up which file is meant
KILLS = {"write": 60, "sql": 150, "replace": 40, "fsync": 40, "unlink": 150, "ftruncate": 8, "outside": 60}


def run(**spec: Any) -> dict[str, Any]:
    """What came out of resumable.py."""
    done = subprocess.run([sys.executable, PROGRAM, json.dumps(spec)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert "error" not in found, found["error"]
    return found


@contextmanager
def run_directory() -> Iterator[str]:
    """A directory for a run; what power_loss.py keeps beside it goes with it."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place, "run")
        directory.mkdir()
        yield str(directory)


@cache
def undisturbed(program: str, every: int, rounds: int) -> dict[str, Any]:
    """What comes out when nobody kills the process, and how many lines it runs through."""
    with run_directory() as directory:
        return run(program=program, every=every, rounds=rounds, dir=directory, deaths=[["line", NEVER]])


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for part in wanted.keys() - {"killed", "count"}:
        assert found[part] == wanted[part], part


@st.composite
def deaths(draw: st.DrawFn, lines: int) -> list[list[Any]]:
    """Up to five deaths, one process after the other."""

    def death() -> st.SearchStrategy[list[Any]]:
        line = st.tuples(st.just("line"), st.integers(1, lines))
        power = st.tuples(st.just("power"), st.integers(1, lines), st.integers(0, 9999)) if CAN_LOSE_POWER else line
        write = st.tuples(st.just("write"), st.integers(1, KILLS["write"]), st.sampled_from([0.0, 0.3, 0.9, 1.0]))
        stop = st.tuples(st.just("ctrl-c"), st.integers(1, lines))
        names = st.sampled_from(sorted(KILLS.keys() - {"write"}))
        call = names.flatmap(lambda name: st.tuples(st.just(name), st.integers(1, KILLS[name])))
        return st.one_of(line, power, write, stop, call).map(list)

    return draw(st.lists(death(), min_size=1, max_size=5))


@pytest.mark.parametrize(("program", "every"), [("strategy", 1), ("strategy", 3), ("main", 1), ("main", 3)])
@settings(max_examples=8)
@given(data=st.data())
def test_a_killed_run_ends_with_the_same_bits(program: str, every: int, data: st.DataObject) -> None:
    wanted = undisturbed(program, every, 5)
    drawn = data.draw(deaths(wanted["count"]))
    with run_directory() as directory:
        same(run(program=program, every=every, rounds=5, dir=directory, deaths=drawn), wanted)


@pytest.mark.parametrize("program", ["strategy", "main"])
def test_a_run_that_is_killed_over_and_over_comes_to_its_end(program: str, tmp_path: Path) -> None:
    wanted = undisturbed(program, 1, 5)
    longer = [["line", wanted["count"] * part // 100] for part in range(20, 105, 5)]  # so that it does come to its end
    found = run(program=program, every=1, rounds=5, dir=str(tmp_path), deaths=longer)
    assert found["killed"] > 3
    same(found, wanted)


@pytest.mark.parametrize("program", ["strategy", "main"])
def test_a_run_in_memory_has_the_same_bits_as_one_on_disk(program: str) -> None:
    found = run(program=program, every=1, rounds=5, dir=None)
    same(found, {part: value for part, value in undisturbed(program, 1, 5).items() if part in found})


@pytest.mark.parametrize("program", ["strategy", "main"])
def test_a_client_remembers_exactly_the_updates_of_it_that_counted(program: str) -> None:
    found = undisturbed(program, 1, 5)
    for name, (counted, _, _) in found["clients"].items():
        state = found["states"][name]
        assert state.get("trained", 0) + state.get("asked", 0) == counted
    assert sum(failed for _, failed, _ in found["clients"].values()) > 0  # and some failed in between


@pytest.mark.parametrize("rule", [{"stop": 4}, {"patience": 1}])
@settings(max_examples=4)
@given(data=st.data())
def test_a_run_that_stops_early_stops_at_the_same_round_when_it_was_killed(
    rule: dict[str, int], data: st.DataObject
) -> None:
    with run_directory() as directory:
        wanted = run(program="strategy", rounds=9, dir=directory, deaths=[["line", NEVER]], **rule)
    assert wanted["status"].startswith("stopped early")
    drawn = data.draw(deaths(wanted["count"]))
    with run_directory() as directory:
        same(run(program="strategy", rounds=9, dir=directory, deaths=drawn, **rule), wanted)


def test_nothing_half_written_stays_behind(tmp_path: Path) -> None:
    wanted = undisturbed("strategy", 1, 5)
    writes = [["write", n, 0.5] for n in range(1, 40, 3)]
    found = run(program="strategy", every=1, rounds=5, dir=str(tmp_path), deaths=writes)
    assert found["files"] == wanted["files"]
    assert found["strays"] == []

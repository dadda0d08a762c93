from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from umbel.node.states import NodeStates, StateLost

RUN, OTHER = "a" * 32, "b" * 32


def test_a_task_begins_with_the_version_it_names(tmp_path: Path) -> None:
    states = NodeStates(tmp_path, keep=0, now=lambda: 0.0)
    assert states.begin(RUN, 0) == {}
    states.write(RUN, 1, {"x": 1, "w": np.arange(3)}, after=0)
    assert states.begin(RUN, 1)["x"] == 1
    states.write(RUN, 2, {"x": 2}, after=1)
    assert states.has(RUN, 2)
    assert states.begin(RUN, 1)["x"] == 1  # 2 did not count
    assert not states.has(RUN, 2)
    states.write(RUN, 3, {"x": 3}, after=1)
    assert states.begin(RUN, 3) == {"x": 3}
    states.close()


def test_versions_outlive_the_process(tmp_path: Path) -> None:
    states = NodeStates(tmp_path, keep=0, now=lambda: 0.0)
    states.write(RUN, 4, {"x": 4}, after=0)
    states.close()
    states = NodeStates(tmp_path, keep=0, now=lambda: 0.0)
    assert states.begin(RUN, 4) == {"x": 4}
    with pytest.raises(StateLost):
        states.begin(RUN, 5)
    states.close()


def test_what_is_gone_is_said(tmp_path: Path) -> None:
    states = NodeStates(tmp_path, keep=0, now=lambda: 0.0)
    with pytest.raises(StateLost):
        states.begin(RUN, 1)
    for version in range(1, 5):
        states.write(RUN, version, {"x": version}, after=version - 1)
    with pytest.raises(StateLost):
        states.begin(RUN, 1)
    assert states.begin(RUN, 3) == {"x": 3}
    states.close()


def test_a_run_from_the_start_begins_without_a_state(tmp_path: Path) -> None:
    states = NodeStates(tmp_path, keep=0, now=lambda: 0.0)
    states.write(RUN, 1, {"x": 1}, after=0)
    assert states.begin(RUN, 0) == {}
    with pytest.raises(StateLost):
        states.begin(RUN, 1)
    states.close()


def test_a_damaged_file_is_a_lost_state(tmp_path: Path) -> None:
    (tmp_path / f"{RUN}.sqlite").write_bytes(b"garbage" * 1000)
    states = NodeStates(tmp_path, keep=0, now=lambda: 0.0)
    with pytest.raises(StateLost):
        states.begin(RUN, 1)
    assert states.begin(RUN, 0) == {}
    states.write(RUN, 1, {"x": 1}, after=0)
    assert states.begin(RUN, 1) == {"x": 1}
    states.close()


def test_old_runs_are_removed(tmp_path: Path) -> None:
    states = NodeStates(tmp_path, keep=100, now=lambda: 1000.0)
    for run in (RUN, OTHER):
        states.write(run, 1, {"x": 1}, after=0)
    states.close()
    os.utime(tmp_path / f"{RUN}.sqlite", (800, 800))
    os.utime(tmp_path / f"{OTHER}.sqlite", (950, 950))
    assert states.sweep() == [RUN]
    assert [p.name for p in tmp_path.iterdir()] == [f"{OTHER}.sqlite"]


def test_a_run_that_asks_for_its_state_keeps_it(tmp_path: Path) -> None:
    """Also one that only evaluates; and that a file is open is no reason to keep it."""
    now = 1000.0
    states = NodeStates(tmp_path, keep=100, now=lambda: now)
    for run in (RUN, OTHER):
        states.write(run, 1, {"x": 1}, after=0)
        for file in tmp_path.glob(f"{run}*"):
            os.utime(file, (now, now))
    now = 1060.0
    assert states.begin(RUN, 1) == {"x": 1}
    now = 1120.0
    assert states.sweep() == [OTHER]
    assert states.begin(RUN, 1) == {"x": 1}
    with pytest.raises(StateLost):
        states.begin(OTHER, 1)
    states.close()


def test_what_cannot_be_removed_keeps_nothing_else_from_going(tmp_path: Path) -> None:
    """It is looked at again and again while the node runs, which must not end for that."""
    states = NodeStates(tmp_path, keep=100, now=lambda: 1000.0)
    (tmp_path / f"{RUN}.sqlite").mkdir()  # a file that somebody else's rights protect looks the same
    states.write(OTHER, 1, {"x": 1}, after=0)
    states.close()
    for file in tmp_path.iterdir():
        os.utime(file, (800, 800))
    assert states.sweep() == [OTHER]
    assert [p.name for p in tmp_path.iterdir()] == [f"{RUN}.sqlite"]

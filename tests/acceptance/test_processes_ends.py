"""However a run with worker processes ends, nothing of it stays: no process, no file; and it can be resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.processes import MARK, alive, children, kill, needs_proc, shared_names, until

PROGRAM = Path(__file__).with_name("ending.py")


class Program:
    """A running ending.py."""

    def __init__(self, place: Path, **spec: Any) -> None:
        needs_proc()
        self.mark, self.temporary, self.beats = uuid.uuid4().hex, place / f"tmp-{uuid.uuid4().hex}", place / "beats"
        self.temporary.mkdir()
        self.beats.write_text("")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(PROGRAM), json.dumps({"beats": str(self.beats), **spec})],
            env={**os.environ, MARK: self.mark, "TMPDIR": str(self.temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def came_to(self, round: int) -> Program:
        """Wait until a client works in that round."""
        until(lambda: f"{round}\n" in self.beats.read_text() or self.process.poll() is not None, f"round {round}")
        return self

    def end(self, *, quiet: bool = True) -> str:
        """What it printed; and nothing of it is left."""
        out, error = self.process.communicate(timeout=60)
        until(lambda: not alive(self.mark), "the end of all processes")
        until(lambda: not list(self.temporary.iterdir()), "the end of all files")
        assert not shared_names()
        if self.process.returncode == 0:
            assert error == "" or not quiet
            return out
        return error


def test_it_succeeds(tmp_path: Path) -> None:
    program = Program(tmp_path)
    assert len(json.loads(program.end())["history"]) == 4


@pytest.mark.parametrize("busy", ["stay", "spin"])
def test_the_main_process_is_killed_and_the_run_goes_on_later(tmp_path: Path, busy: str) -> None:
    """Workers that wait, and workers that compute without letting go of the interpreter, end with it."""
    whole = json.loads(Program(tmp_path).end())
    program = Program(tmp_path, dir=str(tmp_path / "run"), **{busy: 3}).came_to(3)
    assert len(alive(program.mark)) >= 3
    kill(program.process.pid)
    program.end()
    assert json.loads(Program(tmp_path, dir=str(tmp_path / "run")).end()) == whole


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_large_model_whose_updates_helpers_fold(tmp_path: Path, how: signal.Signals) -> None:
    program = Program(tmp_path, size=2_200_000, stay=3).came_to(3)
    if sys.platform == "linux":
        until(lambda: len(children(program.process.pid)) == 3, "a helper")
    for pid in [*children(program.process.pid), program.process.pid] if how == signal.SIGINT else [program.process.pid]:
        os.kill(pid, how)
    error = program.end()
    assert error.count("Traceback") == (how == signal.SIGINT)


def test_ctrl_c_ends_the_run_and_it_goes_on_later(tmp_path: Path) -> None:
    whole = json.loads(Program(tmp_path).end())
    program = Program(tmp_path, dir=str(tmp_path / "run"), stay=3).came_to(3)
    for pid in [*children(program.process.pid), program.process.pid]:  # as a terminal does
        os.kill(pid, signal.SIGINT)
    error = program.end()
    assert "KeyboardInterrupt" in error
    assert error.count("Traceback") == 1
    assert "2 rounds are committed" in error
    assert json.loads(Program(tmp_path, dir=str(tmp_path / "run")).end()) == whole


def test_ctrl_c_while_workers_start(tmp_path: Path) -> None:
    program = Program(tmp_path)
    until(lambda: children(program.process.pid), "a worker")
    for pid in [*children(program.process.pid), program.process.pid]:
        os.kill(pid, signal.SIGINT)
    error = program.end()
    assert error.count("Traceback") == 1
    assert "KeyboardInterrupt" in error


def test_all_workers_are_killed_and_the_run_goes_on_now(tmp_path: Path) -> None:
    whole = json.loads(Program(tmp_path).end())
    program = Program(tmp_path).came_to(1)
    for pid in children(program.process.pid):
        kill(pid)
    assert json.loads(program.end(quiet=False)) == whole


def test_workers_that_die_over_and_over_leave_nothing(tmp_path: Path) -> None:
    program = Program(tmp_path, crash=2, rounds=2)
    assert json.loads(program.end(quiet=False))["history"][1]["failed"] == 4


def test_it_is_told_to_end(tmp_path: Path) -> None:
    program = Program(tmp_path, stay=1).came_to(1)
    program.process.terminate()
    program.end()
    assert program.process.returncode == -signal.SIGTERM

"""`kill -9` of a node at drawn moments: nothing that was finished is trained again, and the bits stay the same."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.acceptance.programs.node_rounds import acknowledged

ROOT = Path(__file__).parents[2]
ROUNDS = 6


def start(directory: Path, *more: str) -> subprocess.Popen[str]:
    directory.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "tests.acceptance.programs.node_rounds", str(directory), str(ROUNDS), *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(directory: Path) -> list[tuple[int, str]]:
    process = start(directory)
    process.communicate(timeout=100)
    assert process.returncode == 0
    return acknowledged(directory)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_an_answer_that_waits_is_sent_after_a_restart_and_not_trained_again(tmp_path: Path) -> None:
    directory = tmp_path / "a"
    process = start(directory, "deaf")
    assert process.stdout is not None
    assert process.stdout.readline() == "heard 1\n"
    kill(process)
    trained = (directory / "trained").read_text().splitlines()
    answers = finish(directory)
    assert [exchange for exchange, _ in answers] == list(range(1, ROUNDS + 1))
    assert trained[0] == "1"
    assert (directory / "trained").read_text().splitlines().count("1") == 1


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_drawn_moments_the_bits_are_the_same(tmp_path: Path, seed: int) -> None:
    expected = finish(tmp_path / "whole")
    draw, directory = random.Random(seed), tmp_path / "killed"
    for _ in range(3):
        process = start(directory)
        try:
            process.communicate(timeout=0.4 + 0.8 * draw.random())
        except subprocess.TimeoutExpired:
            kill(process)
    got = dict(finish(directory))
    assert got == dict(expected)


def test_children_end_when_the_node_is_killed(tmp_path: Path) -> None:
    process = start(tmp_path / "a", "deaf")
    assert process.stdout is not None
    process.stdout.readline()
    children = _children(process.pid)
    assert children
    kill(process)
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() and not _is_zombie(pid) for pid in children):
        assert time.monotonic() < until
        time.sleep(0.01)


def _children(pid: int) -> list[int]:
    if sys.platform != "linux":
        pytest.skip("looks into /proc")
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                if int((path / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(path.name))
            except OSError:
                continue
    return found


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True

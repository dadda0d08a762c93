"""A disk that is full: the run says so, and the same command ends with the same bits once there is room."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import umbel
from umbel.errors import DiskFull
from umbel.store.files import FileStore

DISK = 8 << 20
client = umbel.ClientApp()


@client.train
def train(model: Any, ctx: Any) -> umbel.Update:
    n = ctx.state["n"] = ctx.state.get("n", 0) + 1
    ctx.state["mine"] = ctx.rng.normal(size=8_000)
    return umbel.Update(delta={"w": ctx.rng.normal(size=20_000) * n}, metrics={"n": n, "mine": ctx.state["mine"][0]})


server = umbel.ServerApp(model={"w": np.zeros(20_000)}, strategy=umbel.fed_adam(), rounds=4)


def run(directory: Path | None, *callbacks: Any) -> umbel.Result:
    keep = [umbel.Checkpoint(best_on="mine", mode="max"), *callbacks]
    return umbel.run(server, client, on=umbel.Simulation(clients=4), seed=6, dir=directory, callbacks=keep)


@pytest.fixture
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of eight megabytes, with nothing in it of another test."""
    path = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs tmpfs: only root can mount one")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)  # results still map files there


@pytest.fixture(scope="module")
def undisturbed() -> umbel.Result:
    return run(None)


class Room:
    """Leaves so many bytes free on a disk."""

    def __init__(self, disk: Path) -> None:
        self._disk, self._filler = disk, disk / "filler"

    def leave(self, free: int) -> None:
        gc.collect()  # results that map files which are gone keep them on the disk
        self._filler.unlink(missing_ok=True)
        now = os.statvfs(self._disk)
        with self._filler.open("wb") as file:
            file.write(b"\0" * max(0, now.f_bavail * now.f_frsize - free))

    def make(self) -> None:
        self._filler.unlink(missing_ok=True)


def same(found: umbel.Result, wanted: umbel.Result) -> None:
    assert found.model == wanted.model
    assert found.best == wanted.best
    assert found.history == wanted.history
    assert found.state == wanted.state
    assert found.clients == wanted.clients


def attempt(directory: Path) -> str:
    """What could not be written; "" if the run ended."""
    try:
        run(directory)
    except DiskFull as full:
        assert "free some space and run the same command again" in full.advice
        assert full.what.startswith("no room left on the disk while writing ")
        assert not list(directory.rglob("*.tmp"))
        return full.what.rpartition(" ")[2].removeprefix(f"{directory}/").partition("/")[0]
    return ""


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])  # each example empties it
@given(free=st.lists(st.integers(0, 3 << 20), min_size=1, max_size=4))
def test_a_full_disk_costs_time_only(free: list[int], disk: Path, undisturbed: umbel.Result) -> None:
    directory, room = disk / "run", Room(disk)
    shutil.rmtree(directory, ignore_errors=True)
    for size in free:
        room.leave(size)
        attempt(directory)
    room.make()
    same(run(directory), undisturbed)


def test_whatever_is_being_written_when_the_disk_is_full(disk: Path, undisturbed: umbel.Result) -> None:
    room, met = Room(disk), set[str]()
    for size in range(0, 7 << 19, 48 << 10):  # a whole run takes about 3 MB
        directory = disk / "run"
        shutil.rmtree(directory, ignore_errors=True)
        room.leave(size)
        met.add(attempt(directory))
        room.make()
        same(run(directory), undisturbed)
    assert {"blobs", "clients.sqlite", "initial.safetensors", ""} <= met


def test_no_room_for_the_final_model(disk: Path, undisturbed: umbel.Result, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, room, real = disk / "run", Room(disk), FileStore.finish

    def finish(store: FileStore, *args: Any, **more: Any) -> None:
        assert store.done == 4  # it is written
        room.leave(0)
        real(store, *args, **more)

    with monkeypatch.context() as patched:
        patched.setattr(FileStore, "finish", finish)
        for _ in range(2):  # the second time with nothing left to train
            assert attempt(directory) == "model.safetensors"
    room.make()
    same(run(directory), undisturbed)


def test_no_room_for_a_line_of_the_journal(disk: Path) -> None:
    words = umbel.ServerApp(rounds=6)

    @words.main
    def main(fed: Any) -> None:
        said = fed.state or ""
        for r in fed.rounds():
            said += f"{r} " * 1000
            fed.commit(said)

    def say() -> str:
        return str(umbel.run(words, client, on=umbel.Simulation(clients=1), seed=1, dir=disk / "words").state)

    wanted = "".join(f"{r} " * 1000 for r in range(1, 7))
    room, met = Room(disk), set[str]()
    for size in range(0, 14 << 12, 1 << 12):
        shutil.rmtree(disk / "words", ignore_errors=True)
        room.leave(size)
        try:
            said = say()
        except DiskFull as full:
            met.add(Path(full.what.rpartition(" ")[2]).name)
            room.make()
            said = say()
        assert said == wanted
    assert {"journal", "run.json"} <= met

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

import pytest

from umbel.simulation.spawned import limits_of, spawn

MODULE = """
import os, signal

def main(connection, lifeline):
    print(os.environ["SAID"], flush=True)
    os.read(connection, 1)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "its_main.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "its_main"


def opened() -> set[str]:
    """What is open in this process, as far as it tells one from another."""
    found = set()
    for file in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{file}"))
        except FileNotFoundError:  # that of the listing
            continue
    return {what for what in found if what.startswith(("socket:", "pipe:"))}


def test_a_process_is_talked_to_and_its_end_is_seen(module: str) -> None:
    its = spawn(module, {"SAID": "good morning"})
    with os.fdopen(its.printed, "rb") as printed:
        assert printed.readline() == b"good morning\n"
        its.connection.sendall(b".")
        assert select.select([its.end], [], [], 60.0)[0]
        its.over()
    assert its.process.returncode == 0
    its.connection.close()
    os.close(its.lifeline)


def test_whose_number_may_be_another_processs_by_now_is_not_ended(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    its = spawn(module, {"SAID": ""})
    its.kill()
    assert select.select([its.end], [], [], 60.0)[0]
    its.over()
    sent: list[int] = []
    for name in ("kill", "killpg"):
        monkeypatch.setattr(os, name, lambda pid, _: sent.append(pid))
    its.kill()
    its.interrupt()
    assert sent == []
    its.connection.close()
    for file in (its.lifeline, its.printed):
        os.close(file)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_nothing_stays_open_where_the_system_cannot_start_another(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = opened()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            spawn(module, {})
    assert opened() == before


def test_how_many_threads_libraries_take() -> None:
    assert set(limits_of(3).values()) == {"3"}
    assert limits_of(0) == {}

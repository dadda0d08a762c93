"""Who reads the output may go away, or never have been there: nothing ends in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from umbel.apps.new import new_project
from umbel.link.address import Address

PROGRAM = "from umbel.cli import main; main()"


@pytest.fixture(autouse=True)
def nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("UMBEL_ON", raising=False)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    new_project(tmp_path / "streamed")
    return tmp_path / "streamed"


def shell(line: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What a line of the shell does; "$@" in it is the command."""
    words = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(["/bin/sh", "-c", line, "sh", *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [["config", "APP"], ["run", "APP", "--rounds", "1"], ["doctor", "--app", "APP"]])
def test_standard_output_is_closed(app: Path, words: list[str]) -> None:
    done = shell('"$@" >&-', *(str(app) if word == "APP" else word for word in words))
    assert (done.returncode, done.stderr) == (0, "")


def test_both_streams_are_closed(tmp_path: Path) -> None:
    done = shell('"$@" >&- 2>&-', "config", str(tmp_path / "nothing"))
    assert done.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize("words", [["config", "APP"], ["run", "APP", "--rounds", "2"], ["doctor", "--app", "APP"]])
def test_there_is_no_room_for_what_is_printed(app: Path, words: list[str]) -> None:
    done = shell('"$@" >/dev/full', *(str(app) if word == "APP" else word for word in words))
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first == "umbel: No space left on device"
    assert second.startswith("What to do: check")


def test_an_umlaut_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    new_project(tmp_path / "größer" / "streamed")
    done = shell('"$@"', "config", str(tmp_path / "größer" / "streamed"))
    assert done.returncode == 0, done.stderr
    assert r"gr\xf6\xdfer" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="elsewhere all words are text")
def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    address = str(Address("localhost", 1, secret=bytes(16)))
    words: list[str | bytes] = [sys.executable, "-c", PROGRAM, "show", b"a\xff", "--on", address]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first == r"umbel: 'a\udcff' is no text in UTF-8"
    assert second.startswith("What to do: ")


def test_a_simulation_ends_where_nobody_reads_any_more(app: Path) -> None:
    done = shell('"$@" | head -n 1', "run", str(app), "--rounds", "5000", "--simulation-engine", "inline")
    assert done.stdout.startswith("round 1/5000 ")
    assert done.stderr == ""

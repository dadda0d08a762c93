"""Who reads the output may go away, or never have been there: nothing ends in a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import umbel
from umbel.apps.new import new_project
from umbel.link.address import Address

FEATURES = 5  # of the project that `umbel new` writes
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


@pytest.mark.parametrize(
    "words",
    [
        *(["run", "APP", "--rounds", "1", "--simulation-engine", engine] for engine in ("inline", "processes")),
        *(["evaluate", "MODEL", "APP"], ["doctor", "--app", "APP"], ["node", "check", "--app", "APP"]),
    ],
)
def test_what_an_app_prints_stands_not_between_json(app: Path, tmp_path: Path, words: list[str]) -> None:
    code = app / "streamed" / "app.py"
    loud = code.read_text(encoding="utf-8").replace("def predict(w, b, x):\n", "def predict(w, b, x):\n    shout()\n")
    shout = "def shout():\n    print('a handler prints')\n    os.write(1, b'a library prints\\n')\n"
    code.write_text(f"import os\nprint('an app is imported')\n{loud}\n\n{shout}", encoding="utf-8")
    umbel.Arrays({"w": np.zeros(FEATURES), "b": np.zeros(1)}).save(tmp_path / "model.safetensors")
    given = {"APP": str(app), "MODEL": str(tmp_path / "model.safetensors")}
    done = shell('"$@"', *(given.get(word, word) for word in words), "--json")
    assert done.returncode == 0, done.stderr
    assert all(isinstance(json.loads(line), dict) for line in done.stdout.splitlines())
    if words[0] in ("run", "evaluate"):
        assert {"an app is imported", "a handler prints", "a library prints"} <= set(done.stderr.splitlines())

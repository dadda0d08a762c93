from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import umbel
from umbel.show import show_run


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: umbel.Context) -> umbel.Update:
        return umbel.Update(model={"w": model["w"] + 1}, metrics={"loss": 0.25, "hits": np.array([1, 2])})

    server = umbel.ServerApp(model={"w": np.zeros(2)}, strategy=umbel.fed_avg(), rounds=2)
    umbel.run(server, client, on=umbel.Simulation(clients=3), seed=5, dir=tmp_path / "run")
    return tmp_path / "run"


def umbel_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "umbel", *arguments], capture_output=True, text=True, check=False)


def test_show_prints_the_history(run_directory: Path) -> None:
    done = umbel_command("show", str(run_directory))
    assert done.returncode == 0, done.stderr
    for word in ("fed_avg, 3 clients", "seed 5", "finished", "loss", "0.2500"):
        assert word in " ".join(done.stdout.split())


def test_a_narrow_terminal_shows_all_digits(
    run_directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    show_run(run_directory, as_json=False)
    said = capsys.readouterr().out
    assert "…" not in said
    assert "500" in said


def test_show_prints_json(run_directory: Path) -> None:
    shown = json.loads(umbel_command("show", str(run_directory), "--json").stdout)
    assert shown["status"] == "finished"
    assert [row["loss"] for row in shown["history"]] == [0.25, 0.25]
    assert shown["recipe"]["seed"] == 5


def test_what_is_no_run_is_refused_in_words(tmp_path: Path) -> None:
    done = umbel_command("show", str(tmp_path))
    assert done.returncode == 1
    assert "is not the directory of a run" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_help_and_version_are_there() -> None:
    assert "show" in umbel_command("--help").stdout
    assert umbel_command("--version").stdout.strip() == umbel.__version__

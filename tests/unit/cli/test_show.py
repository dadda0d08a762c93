from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from umbel.show import show_run


def run_into(directory: Path, metrics: dict[str, Any]) -> Path:
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: umbel.Context) -> umbel.Update:
        return umbel.Update(model={"w": model["w"] + 1}, metrics=metrics)

    server = umbel.ServerApp(model={"w": np.zeros(2)}, strategy=umbel.fed_avg(), rounds=2)
    umbel.run(server, client, on=umbel.Simulation(clients=3, engine="inline"), seed=5, dir=directory)
    return directory


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    return run_into(tmp_path / "run", {"loss": 0.25, "hits": np.array([1, 2])})


def umbel_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "umbel", *arguments], capture_output=True, text=True, check=False)


def test_show_prints_the_history(run_directory: Path) -> None:
    done = umbel_command("show", str(run_directory))
    assert done.returncode == 0, done.stderr
    for word in ("fed_avg, 3 clients", "seed 5", "finished", "loss", "0.2500"):
        assert word in " ".join(done.stdout.split())


def test_names_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A client chooses what its metrics are called."""
    show_run(run_into(tmp_path / "[bold]", {"[/red]": 1.0}))
    said = "".join(capsys.readouterr().out.split())
    assert "[/red]" in said
    assert "[bold]:fed_avg" in said


def test_a_narrow_terminal_shows_all_digits(
    run_directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    show_run(run_directory)
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

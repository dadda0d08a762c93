"""The display: on a terminal a bar, elsewhere not a byte."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import umbel
from umbel.engine.history import History, Row
from umbel.progress import Quiet, Watch, display

PROGRAM = """
import sys
import numpy as np
import umbel

client = umbel.ClientApp()

@client.train
def train(model, ctx):
    print("printed by client", ctx.client.name)
    return umbel.Update(model={"w": model["w"] + 1}, metrics={"loss[a]": 1.0 / ctx.round, "f1[/b]": 0.5})

server = umbel.ServerApp({"w": np.zeros(2)}, umbel.fed_avg(), 3)
umbel.run(server, client, on=umbel.Simulation(clients=2), seed=1, name="[bold]my run[/x]")
"""
QUIET = PROGRAM.replace('print("printed by client", ctx.client.name)', "pass")


def environment() -> dict[str, str]:
    return {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200", "LINES": "50", "PYTHONWARNINGS": "error"}


def on_a_terminal(program: str, *, printed: Path | None = None) -> str:
    """What a person sees who runs a program; with ``printed`` its standard output goes into a file."""
    pty = pytest.importorskip("pty")
    mine, its = pty.openpty()
    with open(printed or os.devnull, "w", encoding="utf-8") as file:
        out = file if printed is not None else its
        child = subprocess.Popen([sys.executable, "-c", program], stdin=its, stdout=out, stderr=its, env=environment())
    os.close(its)
    seen = b""
    while True:
        try:
            part = os.read(mine, 4096)
        except OSError:  # Linux says so when the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(mine)
    assert child.wait(timeout=60) == 0, seen.decode()
    return seen.decode()


def test_where_nobody_watches_there_is_not_a_byte() -> None:
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, check=True, env=environment())
    assert (done.stdout, done.stderr) == (b"", b"")


def test_on_a_terminal_there_is_a_bar_with_rounds_cohort_and_metrics() -> None:
    seen = on_a_terminal(PROGRAM)
    assert "[bold]my run[/x]" in seen, "as it was written, and no markup"
    assert "3/3" in seen
    assert "rounds" in seen
    assert "cohort 2/2" in seen
    assert "loss[a] 0.3333  f1[/b] 0.5" in seen
    assert "printed by client 0" in seen, "above the bar"


def test_what_a_program_prints_into_a_file_stays_there(tmp_path: Path) -> None:
    seen = on_a_terminal(PROGRAM, printed=tmp_path / "out")
    assert "printed by client" not in seen
    assert (tmp_path / "out").read_text(encoding="utf-8").count("printed by client") == 6
    assert "3/3" in seen


def test_a_name_is_shortened_to_a_line() -> None:
    seen = on_a_terminal(PROGRAM.replace("[bold]my run[/x]", "a\\nb" + "x" * 500))
    assert "a b" + "x" * 37 + " " in seen


class Recorder:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def round_opened(self, round: int, cohort: int) -> None:
        self.seen.append(f"round {round} of {cohort}")

    def clients_done(self, count: int) -> None:
        self.seen.append(f"{count} done")

    def committed(self, history: History) -> None:
        self.seen.append(f"{len(history)} committed")

    def close(self) -> None:
        self.seen.append("closed")


def test_the_watch_passes_on_and_asks_the_callbacks_after_the_round_is_shown() -> None:
    recorder = Recorder()

    def after() -> str:
        recorder.seen.append("callbacks")
        return "enough"

    watch = Watch(recorder, after)
    watch.round_opened(3, 5)
    watch.clients_done(["a", "b"])
    assert watch.committed(History([Row(round=1)])) == "enough"
    assert recorder.seen == ["round 3 of 5", "2 done", "1 committed", "callbacks"]
    assert Watch().committed(History()) == ""


def test_into_a_file_there_is_no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    shown = display("run", 3)
    assert isinstance(shown, Quiet)
    shown.round_opened(1, 2)
    shown.clients_done(1)
    shown.committed(History())
    shown.close()


def test_an_evaluation_shows_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    client = umbel.ClientApp()
    client.evaluate(lambda model, ctx: umbel.Metrics({"a": 1.0}))  # noqa: ARG005
    umbel.evaluate({"w": [1.0]}, client, on=umbel.Simulation(clients=2))
    assert capfd.readouterr() == ("", "")

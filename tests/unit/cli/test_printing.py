from __future__ import annotations

import json

import numpy as np
import pytest

from umbel.cli.lines import say
from umbel.cli.printing import ago, give, line, note, number, seconds_of, span, table
from umbel.errors import UsageError


@pytest.mark.parametrize(
    ("away", "said"),
    [(0.2, "now"), (90, "in 2 minutes"), (-90, "2 minutes ago"), (-3599.5, "1 hour ago"), (2 * 86400, "in 2 days")],
)
def test_times_are_relative_for_people(away: float, said: str) -> None:
    assert ago(1e9 + away, now=1e9) == said


def test_what_never_was_is_not_said() -> None:
    assert ago(0) == ""
    assert span(0.25) == "0.2 seconds"


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("12h", 43200), ("7d", 604800)])
def test_spans_of_time_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "0", "0d", "7w", "-1h", "nan", "inf", "1e300d"])
def test_what_is_no_span_of_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="30m, 12h, 7d"):
        seconds_of(text)


def test_a_table_is_aligned_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    table(("run", "rounds"), [("a", "3/10"), ("bcde", "10/10")], right=("rounds",))
    assert capsys.readouterr().out == "run   rounds\na       3/10\nbcde   10/10\n"


def test_a_table_on_a_terminal_shows_names_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    table(("[/red]", "a\x1b[2J"), [("[bold]", "\x07")])
    said = capsys.readouterr().out
    assert all(word in said for word in ("[/red]", "a\\x1b[2J", "[bold]", "\\x07"))


def test_nothing_that_was_said_elsewhere_does_something_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    line("one\x1b[2J\ttwo\n\u202ethree ä")
    note("\x9b31m")
    assert capsys.readouterr() == ("one\\x1b[2J\ttwo\n\\u202ethree ä\n", "\\x9b31m\n")
    give({"name": "\x1b\x7f\n"})
    assert json.loads(capsys.readouterr().out) == {"name": "\x1b\x7f\n"}


def test_no_line_that_was_said_elsewhere_looks_like_one_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    say("task-failed: it broke\n2026-01-01 00:00:00  task-done\n  What to do: mend it", json=False, level="warning")
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.endswith("  warning: task-failed: it broke")
    assert (second, third) == ("  2026-01-01 00:00:00  task-done", "  What to do: mend it")


def test_json_holds_arrays_and_numbers_of_numpy(capsys: pytest.CaptureFixture[str]) -> None:
    give({"a": np.arange(2), "b": np.float32(0.5), "c": b"\xff", "d": (1, 2)})
    assert json.loads(capsys.readouterr().out) == {"a": [0, 1], "b": 0.5, "c": "ff", "d": [1, 2]}


@pytest.mark.parametrize(("value", "cell"), [(None, ""), (0.5, "0.5000"), (3, "3"), (np.array([1, 2]), "[1 2]")])
def test_cells(value: object, cell: str) -> None:
    assert number(value) == cell

"""Who follows a run hears of what holds it up, once, and not of what repeats itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest

from umbel import wire
from umbel.engine.history import History
from umbel.remote.follower import Follower
from umbel.remote.line import Line

AWAY = {
    "client": "lyon",
    "message": "node 'lyon' has been away for more than 30 seconds\n  What to do: look at its log",
}


class Told:
    """A line that tells these events of a run, of which the last is its end."""

    def __init__(self, *events: tuple[str, dict[str, Any]]) -> None:
        self._events = (*events, ("end", {"status": "failed", "reason": "too few"}))

    def stream(self, name: str, request: wire.WatchRunRequest) -> Iterator[wire.WatchRunResponse]:
        assert (name, request.since) == ("WatchRun", 0)
        for number, (kind, content) in enumerate(self._events, 1):
            yield wire.WatchRunResponse(event=number, kind=kind, content=json.dumps(content))


def said(caplog: pytest.LogCaptureFixture, *events: tuple[str, dict[str, Any]], quiet: bool = False) -> list[str]:
    ending = Follower(cast("Line", Told(*events)), "1a2b", quiet=quiet).to_the_end()
    assert ending.status == "failed"
    return [record.getMessage() for record in caplog.records]


def test_a_client_that_is_waited_for_is_told(caplog: pytest.LogCaptureFixture) -> None:
    first, *_, last = said(caplog, *[("failure", {**AWAY, "again": True})] * 20, ("failure", AWAY))
    assert first == f"client-lost: asked again: round 1, client 'lyon', train: {AWAY['message']}"
    assert last == f"client-failed: round 1, client 'lyon', train: {AWAY['message']}"
    assert len(caplog.records) == 11


def test_a_failure_that_repeats_itself_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    other = {**AWAY, "client": "turin"}
    lines = said(caplog, ("failure", AWAY), ("failure", other), ("failure", AWAY))
    assert [line.split("'")[1] for line in lines] == ["lyon", "turin"]


def test_nothing_is_told_twice_where_somebody_listens(caplog: pytest.LogCaptureFixture) -> None:
    assert said(caplog, ("failure", {**AWAY, "again": True}), ("failure", AWAY), quiet=True) == []


def test_why_a_run_waits_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    turn = ("status", {"status": "queued", "reason": "waits its turn: 8 under way, 0 more before it"})
    nodes = ("status", {"status": "waiting", "reason": "waits for 2 nodes; 1 is there"})
    running = ("status", {"status": "running", "reason": ""})
    lines = said(caplog, ("status", {"status": "queued", "reason": ""}), turn, turn, running, nodes, nodes)
    assert lines == [f"run-waits: {event[1]['reason']}" for event in (turn, nodes)]


def test_how_far_a_round_is_is_shown_as_it_goes() -> None:
    """Such events are not kept, and so have no number of their own: the server gives that of the last one that is."""
    shown: list[tuple[str, int]] = []

    class Shown:
        def round_opened(self, round: int, cohort: int) -> None:
            shown.append((f"round {round}", cohort))

        def clients_done(self, count: int) -> None:
            shown.append(("done", count))

        def committed(self, history: History) -> None:
            raise AssertionError(history)

        def close(self) -> None:
            raise AssertionError("it is for others to close")

    class Passing(Told):
        def stream(self, name: str, request: wire.WatchRunRequest) -> Iterator[wire.WatchRunResponse]:
            begun, end = super().stream(name, request)
            yield begun
            for kind, content in (("exchange", {"round": 1, "cohort": 4}), ("answers", {"done": 3, "cohort": 4})):
                yield wire.WatchRunResponse(event=1, kind=kind, content=json.dumps(content))
            yield begun  # what is kept may come twice
            yield end

    heard: list[str] = []
    line = cast("Line", Passing(("status", {"status": "running"})))
    Follower(line, "1a2b", Shown(), heard=lambda event: heard.append(event.kind)).to_the_end()
    assert shown == [("round 1", 4), ("done", 3)]
    assert heard == ["status", "exchange", "answers", "end"]

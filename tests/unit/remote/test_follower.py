"""Who follows a run hears of what holds it up, once, and not of what repeats itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest

from umbel import wire
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

from __future__ import annotations

import logging

import pytest

from umbel.errors import NotThere, Unreachable
from umbel.remote.line import patiently


def test_what_fails_for_want_of_a_server_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []

    def work() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise Unreachable("nobody listens")
        return "done"

    with caplog.at_level(logging.WARNING, "umbel"):
        assert patiently(work) == "done"
    assert [record.message for record in caplog.records] == [
        "server-away: nobody listens; it is tried again for 60 minutes"
    ]


def test_patience_ends_and_other_errors_pass() -> None:
    def away() -> None:
        raise Unreachable("nobody listens")

    def refused() -> None:
        raise NotThere("no such run")

    with pytest.raises(Unreachable):
        patiently(away, patience=0.0)
    with pytest.raises(NotThere):
        patiently(refused)


def test_work_that_gets_on_has_its_patience_anew() -> None:
    steps: list[int] = []

    def work() -> int:
        steps.append(1)
        if len(steps) < 4:
            raise Unreachable("it broke off")
        return len(steps)

    assert patiently(work, patience=0.01, moved=lambda: len(steps)) == 4

"""What callers learn of a server whose disk is full, or whose database does not answer."""

from __future__ import annotations

import asyncio
import logging

import pytest

from umbel import wire
from umbel.errors import DiskFull, InUse, NotThere, StoreError, UmbelError, Unreachable
from umbel.link.dispatch import Broken, Dispatch
from umbel.link.sessions import Sessions
from umbel.link.status import error_of
from umbel.server.trouble import Trouble

FULL = DiskFull("no room left on the disk while writing /fed/umbel.sqlite", advice="free some space")
AWAY = StoreError("postgresql://umbel:***@db/umbel: Connection refused", advice="check that the database runs")


class Desk:
    """Answers nodes, with an error."""

    def __init__(self, error: UmbelError) -> None:
        self._error = error

    async def enrol(self, request: wire.EnrolRequest) -> wire.EnrolResponse:
        assert request.check
        raise self._error


def told(error: UmbelError) -> UmbelError:
    dispatch = Dispatch(Desk(error), sessions=Sessions(), told=Trouble())  # type: ignore[arg-type]  # only what is asked
    request = wire.EnrolRequest(ticket="t" * 22, name="berlin", public_key=bytes(32), check=True)
    with pytest.raises(Broken) as broken:
        asyncio.run(dispatch.unary("/umbel.v1.NodeService/Enrol", request.SerializeToString(), {}))
    return error_of(broken.value.status)


@pytest.mark.parametrize(
    ("error", "kind"), [(FULL, DiskFull), (AWAY, Unreachable), (InUse("/fed", advice="stop it"), Unreachable)]
)
def test_whose_trouble_it_is_is_told_and_not_what_its_files_are_called(
    error: StoreError, kind: type[UmbelError], caplog: pytest.LogCaptureFixture
) -> None:
    heard = told(error)
    assert type(heard) is kind
    assert heard.what.startswith("the server ")
    assert heard.retryable
    assert "operator" in heard.advice
    assert error.what not in str(heard)
    assert f"store-failed: {error.what}" in caplog.text
    advice = "free some space; what was not taken" if isinstance(error, DiskFull) else error.advice
    assert f"What to do: {advice}" in caplog.text
    assert "Traceback" not in caplog.text


def test_what_is_about_the_caller_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    error = NotThere("there is no blob", advice="send it")
    heard = told(error)
    assert (type(heard), heard.what, heard.advice) == (NotThere, error.what, error.advice)
    assert not caplog.records


def test_the_same_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = iter([0.0, 1.0, 2.0, 59.0, 61.0, 62.0])
    trouble, counts = Trouble(lambda: next(clock)), []
    with caplog.at_level(logging.ERROR, "umbel"):
        for error in (FULL, FULL, AWAY, FULL, FULL, AWAY):
            trouble(error)
            counts.append(len(caplog.records))
    assert counts == [1, 1, 2, 2, 3, 4]

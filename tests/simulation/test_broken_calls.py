"""Calls whose caller goes away while the server does what was asked: what is written down takes effect."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.hands import PATIENCE, blob_of, one_node, plain, trained
from tests.simulation.network import Place
from umbel import wire
from umbel.link.dispatch import Dispatch
from umbel.link.memory import memory_person
from umbel.link.person import PersonLink
from umbel.link.sessions import Sessions
from umbel.server.control import ControlDesk
from umbel.server.people import Person

REPEATED = wire.ReportResponse.VERDICT_REPEATED


def person(place: Place) -> PersonLink:
    """An operator's link to a server."""
    assert place.desk
    assert place.store
    assert place.hub
    assert place.runs
    control = ControlDesk(place.store, place.hub, place.runs, place.uploads, nodes=place.desk)
    vera = Person("vera", "operator")
    return memory_person(Dispatch(place.desk, control, sessions=Sessions(), authorize=lambda *_: vera), "token")


class Slow:
    """A change that the store makes at once, and of which it tells when the test says so."""

    def __init__(self, place: Place, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._written, self._tell = asyncio.Event(), threading.Event()
        real: Callable[..., Future[Any]] = getattr(place.store, name)
        loop = asyncio.get_running_loop()

        def change(*args: Any, **more: Any) -> Future[Any]:
            told: Future[Any] = Future()
            told.set_running_or_notify_cancel()
            result = real(*args, **more).result(PATIENCE)
            loop.call_soon(self._written.set)

            def tell() -> None:
                self._tell.wait(PATIENCE)
                told.set_result(result)

            threading.Thread(target=tell).start()
            return told

        monkeypatch.setattr(place.store, name, change)

    async def break_off(self, call: Coroutine[Any, Any, Any]) -> None:
        """Make a call whose caller goes away when the change is written, and before the server has heard of it."""
        calling = asyncio.ensure_future(call)
        async with asyncio.timeout(PATIENCE):
            await self._written.wait()
        calling.cancel()
        with suppress(asyncio.CancelledError):
            await calling
        self._tell.set()


def test_an_answer_whose_node_loses_its_connection_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            run = await place.submit(plain())
            task = await hand.task()
            answer = blob_of(trained(task))
            await Slow(place, "accept", monkeypatch).break_off(hand.report(task, answer))
            monkeypatch.undo()
            assert await hand.report(task, answer) == REPEATED
            async with asyncio.timeout(PATIENCE):
                assert (await place.ended(run)).status == "finished"

    asyncio.run(story())


def test_a_node_is_revoked_though_the_operator_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            change = wire.ChangeNodeRequest(node=hand.name, revoked=True)
            slow = Slow(place, "change_node", monkeypatch)
            await slow.break_off(person(place).call("ChangeNode", change))
            async with asyncio.timeout(PATIENCE):
                assert (await hand.heard.get()).WhichOneof("notice") == "goodbye"

    asyncio.run(story())


def test_a_run_is_submitted_resumed_and_stopped_though_who_asked_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            assert place.runs
            with monkeypatch.context() as patched:
                await Slow(place, "submit", patched).break_off(place.submit(plain()))
            run = (await hand.task()).id.run
            stop = wire.StopRunRequest(run=run)
            with monkeypatch.context() as patched:
                await Slow(place, "audit", patched).break_off(person(place).call("StopRun", stop))
            async with asyncio.timeout(PATIENCE):
                row = await place.ended(run)
            assert (row.status, row.reason) == ("stopped", "stopped by vera")
            with monkeypatch.context() as patched:
                await Slow(place, "set_status", patched).break_off(place.runs.resume(row, 0, "vera"))
            task = await hand.task()
            await hand.report(task, blob_of(trained(task)))
            async with asyncio.timeout(PATIENCE):
                assert (await place.ended(run)).status == "finished"

    asyncio.run(story())

"""A server that starts again or is asked twice, where the moment matters."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.hands import PATIENCE, Hand, blob_of, one_node, plain, trained
from tests.simulation.network import APP
from umbel import wire
from umbel.errors import DiskFull, StoreError
from umbel.server import runs as server_runs
from umbel.server.control import ControlDesk
from umbel.server.desk import Desk
from umbel.server.people import Person
from umbel.server.wanted import Wanted
from umbel.store.sql.values import Status

AWAY = StoreError("the database does not answer", advice="check that it runs")
ACCEPTED, LATE = wire.ReportResponse.VERDICT_ACCEPTED, wire.ReportResponse.VERDICT_LATE


class Gate:
    """Holds a method of the desk up, in the run's thread."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self._open = threading.Event(), threading.Event()
        real = getattr(Desk, name)

        def held(desk: Desk, *args: Any) -> Any:
            self.reached.set()
            self._open.wait(PATIENCE)
            return real(desk, *args)

        monkeypatch.setattr(Desk, name, held)

    async def until_reached(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, PATIENCE)

    def open(self) -> None:
        self._open.set()


def test_an_answer_that_comes_before_its_client_is_asked_again_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart: the run has looked into the store, and the hub has not heard yet whom it asks."""

    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            run = await place.submit(plain())
            task = await hand.task()
            await place.stop()
            await hand.away()
            gate = Gate("lease", monkeypatch)
            place.start()
            await hand.connect()
            await gate.until_reached()
            assert await hand.report(task, blob_of(trained(task))) == ACCEPTED
            gate.open()
            async with asyncio.timeout(PATIENCE):
                row = await place.ended(run)
            assert (row.status, row.round) == ("finished", 1)
            assert "task" not in hand.unheard(), "it was asked again"

    asyncio.run(story())


def test_an_exchange_that_cannot_be_written_ends_its_run_though_nodes_were_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            assert place.store is not None
            failing: Future[Any] = Future()
            with monkeypatch.context() as patched:
                patched.setattr(place.store, "open_exchange", lambda *_: failing)
                run = await place.submit(plain())
                task = await hand.task()
                failing.set_exception(DiskFull("no room left", advice="free some"))
                async with asyncio.timeout(PATIENCE):
                    row = await place.ended(run)
            advice = f"free some space; then: umbel resume {run[:8]}"
            assert (row.status, row.reason) == ("failed", f"no room left\n  What to do: {advice}")
            assert f"store-failed: run {run[:8]} has ended: no room left" in caplog.text
            assert await hand.report(task, blob_of(trained(task))) == LATE
            assert place.runs is not None
            await place.runs.resume(row, 0, "alice")
            again = await hand.task()
            assert (again.id.exchange, again.id.client) == (task.id.exchange, task.id.client)
            assert await hand.report(again, blob_of(trained(again))) == ACCEPTED
            async with asyncio.timeout(PATIENCE):
                assert (await place.ended(run)).status == "finished"

    asyncio.run(story())


def test_a_run_goes_on_of_which_a_server_that_ends_could_not_write_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for no database then."""

    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            assert place.store is not None
            assert place.runs is not None
            failing: Future[Any] = Future()
            with monkeypatch.context() as patched:
                patched.setattr(place.store, "commit", lambda *_, **__: failing)
                run = await place.submit(plain(rounds=2))
                task = await hand.task()
                assert await hand.report(task, blob_of(trained(task))) == ACCEPTED
                await hand.task()
                ending = asyncio.create_task(place.runs.close())
                await asyncio.sleep(0)
                failing.set_exception(AWAY)
                async with asyncio.timeout(PATIENCE):
                    await ending
            assert place.store.run(run).status == "running"

    asyncio.run(story())


def test_the_end_of_a_run_is_written_down_when_that_can_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else it would seem to go on for ever, after the database was away for long."""
    monkeypatch.setattr(server_runs, "_AGAIN", 0.0)

    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            assert place.store is not None
            assert place.runs is not None
            run = await place.submit(plain())
            task = await hand.task()
            real, tries, active = place.store.set_status, iter([AWAY, AWAY, None]), place.runs.active

            def set_status(id: str, status: Status, reason: str = "", **more: Any) -> Future[Any]:
                error = next(tries) if status == "finished" else None
                if error is None:
                    return real(id, status, reason, **more)
                assert run in active
                failed: Future[Any] = Future()
                failed.set_exception(error)
                return failed

            monkeypatch.setattr(place.store, "set_status", set_status)
            assert await hand.report(task, blob_of(trained(task))) == ACCEPTED
            async with asyncio.timeout(PATIENCE):
                assert (await place.ended(run)).status == "finished"
            assert place.store.run(run).status == "finished"
            assert active == {}

    asyncio.run(story())
    assert caplog.text.count(f"not-kept: what happened in a run could not be written down: {AWAY.what}") == 2


def test_a_server_that_ends_before_that_goes_on_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            assert place.store is not None
            run = await place.submit(plain())
            task = await hand.task()
            tried = asyncio.Event()

            def set_status(*_: Any) -> Future[Any]:
                tried.set()
                failed: Future[Any] = Future()
                failed.set_exception(AWAY)
                return failed

            monkeypatch.setattr(place.store, "set_status", set_status)
            assert await hand.report(task, blob_of(trained(task))) == ACCEPTED
            async with asyncio.timeout(PATIENCE):
                await tried.wait()
                await place.stop()
                await hand.away()
            place.start()
            async with asyncio.timeout(PATIENCE):
                assert (await place.ended(run)).status == "finished"

    asyncio.run(story())


@pytest.mark.parametrize("moment", ["population", "open", "lease"])
def test_a_large_answer_is_taken_while_its_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """After a restart: nobody has been asked for anything yet."""

    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            run = await place.submit(plain(50_000))
            task = await hand.task()
            await place.stop()
            await hand.away()
            gate = Gate(moment, monkeypatch)
            place.start()
            await hand.connect()
            await gate.until_reached()
            data = trained(task, 50_000)
            writing = asyncio.create_task(hand.write(data))
            reading = asyncio.create_task(_read(hand.link, task.model))
            await asyncio.wait([writing], timeout=0)
            gate.open()
            assert (await writing).complete
            assert await reading == task.model.size
            assert await hand.report(task, blob_of(data, inside=False)) == ACCEPTED
            async with asyncio.timeout(PATIENCE):
                assert (await place.ended(run)).status == "finished"

    asyncio.run(story())


async def _read(link: Any, blob: wire.Blob) -> int:
    pieces: Sequence[Any] = [p async for p in link.read_blob(wire.ReadBlobRequest(digest=blob.digest))]
    return sum(map(len, pieces))


def test_after_a_restart_nobody_is_waited_for_who_was_given_up_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One was away for too long, so that another cohort was asked; it stays so, though by now the one is back."""

    async def story() -> None:
        async with one_node(tmp_path, patience=0.0) as (place, berlin):
            lyon = Hand(place, "lyon")
            await place.enrol(lyon.name, lyon.identity)
            await lyon.connect()
            run = await place.submit(plain(min_nodes=2))
            assert [(await hand.task()).id.exchange for hand in (berlin, lyon)] == [1, 1]
            await lyon.away()
            while "revoke" not in berlin.unheard():
                await asyncio.sleep(0)
            await lyon.connect()
            assert [(await hand.task()).id.exchange for hand in (berlin, lyon)] == [2, 2]
            await place.stop()
            for hand in (berlin, lyon):
                await hand.away()
                hand.unheard()
            gate = Gate("lease", monkeypatch)
            place.start()
            for hand in (berlin, lyon):
                await hand.connect()
            await gate.until_reached()
            gate.open()
            for hand in (berlin, lyon):
                task = await hand.task()
                assert task.id.exchange == 2
                assert await hand.report(task, blob_of(trained(task))) == ACCEPTED
            assert (await place.ended(run)).status == "finished"
            await lyon.away()

    asyncio.run(story())


def test_an_answer_that_comes_before_the_runs_have_begun_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            run = await place.submit(plain())
            task = await hand.task()
            await place.stop()
            await hand.away()
            monkeypatch.setattr("umbel.server.runs.Runs.start", lambda _: None)
            place.start()
            monkeypatch.undo()
            await hand.connect()
            reporting = asyncio.create_task(hand.report(task, blob_of(trained(task))))
            await asyncio.wait([reporting], timeout=0)
            assert place.runs is not None
            place.runs.start()
            assert await reporting == ACCEPTED
            assert (await place.ended(run)).status == "finished"

    asyncio.run(story())


def test_a_server_that_ends_revokes_nothing(tmp_path: Path) -> None:
    """What nodes work on when an operator restarts it is not to be done again."""

    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            await place.submit(plain())
            await hand.task()
            await place.stop()
            await hand.away()
            assert hand.unheard() == ["goodbye"]

    asyncio.run(story())


def test_the_state_counts_of_a_node_that_is_renamed_again_and_again_in_a_round(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            assert place.runs
            run = await place.submit(plain())
            await hand.task()
            for old, new in (("berlin", "bonn"), ("bonn", "lyon"), ("lyon", "rom")):
                place.runs.renamed(old, new)
            desk = place.runs.active[run].desk
            desk.count(["berlin"])
            assert desk.counted == ("rom",)

    asyncio.run(story())


def test_a_node_that_is_labelled_in_a_round_works_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            await hand.away()
            await hand.connect(labels=[wire.Label(name="scanner", value="a"), wire.Label(name="city", value="berlin")])
            assert place.store
            assert place.hub
            assert place.runs
            assert place.desk
            people = ControlDesk(place.store, place.hub, place.runs, place.uploads, nodes=place.desk)

            async def label(**labels: str) -> None:
                change = wire.ChangeNodeRequest(node=hand.name)
                change.labels.labels.extend(wire.Label(name=name, value=value) for name, value in labels.items())
                change.labels.SetInParent()
                await people.change_node(Person("vera", "operator"), change)

            everybody = Wanted(app=APP)
            run = await place.submit(plain(rounds=2, retries=0, on_miss="stop"))
            first = await hand.task()
            await label(scanner="b", country="de")
            assert place.hub.population(everybody) == {"berlin": {"city": "berlin", "country": "de", "scanner": "b"}}
            assert await hand.report(first, blob_of(trained(first))) == ACCEPTED
            second = await hand.task()
            await label()
            assert place.hub.population(everybody) == {"berlin": {"city": "berlin", "scanner": "a"}}
            assert await hand.report(second, blob_of(trained(second))) == ACCEPTED
            async with asyncio.timeout(PATIENCE):
                assert (await place.ended(run)).status == "finished"
            assert hand.unheard() == []

    asyncio.run(story())


def test_a_run_that_is_resumed_twice_at_once_is_conducted_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            run = await place.submit(plain())
            await hand.task()
            assert place.runs is not None
            row = await place.runs.stop(place.runs.find(run), "alice")
            begun: list[str] = []
            real = place.runs._begin
            place.runs._begin = lambda run: (begun.append(run.id), real(run))[1]  # type: ignore[method-assign,func-returns-value]
            await asyncio.gather(*(place.runs.resume(row, 0, "alice") for _ in range(2)))
            assert begun == [run]

    asyncio.run(story())


def test_a_run_that_cannot_be_made_keeps_no_other_from_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):

            def unmade(run: Any, store: Any) -> Any:
                raise ZeroDivisionError(run.name)

            monkeypatch.setattr("umbel.server.runs.submission_of", unmade)
            assert place.runs is not None
            run = place.runs.find(await place.submit(plain()))
            async with asyncio.timeout(PATIENCE):
                row = await place.ended(run.id)
            assert (row.status, row.reason) == (
                "failed",
                "what was submitted cannot be made: ZeroDivisionError: run",
            )
            del hand

    asyncio.run(story())


@pytest.mark.parametrize("what", ["run", "states"])
def test_a_run_waits_on_though_the_store_cannot_be_read_when_it_is_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """As while a database is started again."""
    monkeypatch.setattr("umbel.server.runs._AGAIN", 0.0)

    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            assert place.runs is not None
            assert place.store is not None
            place.runs._at_once = 1
            await place.submit(plain(), key="a")
            second = await place.submit(plain(), key="b")
            task = await hand.task()
            failures = iter([StoreError("the database is away")] * 3)
            real = getattr(place.store, what)

            def read(id: str) -> Any:
                for failure in failures:
                    raise failure
                return real(id)

            with monkeypatch.context() as patched:
                patched.setattr(place.store, what, read)
                assert await hand.report(task, blob_of(trained(task))) == ACCEPTED
                task = await hand.task()
            assert task.id.run == second
            assert f"store-failed: run {second[:8]} waits on" in caplog.text
            assert await hand.report(task, blob_of(trained(task))) == ACCEPTED
            async with asyncio.timeout(PATIENCE):
                assert (await place.ended(second)).status == "finished"

    asyncio.run(story())

"""Nodes that send what nobody can use, and runners who submit it: nobody else notices."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.simulation.hands import PATIENCE, Hand, blob_of, one_node, plain, trained
from tests.simulation.network import Place
from umbel import wire
from umbel.arrays import Arrays
from umbel.client.failures import trace
from umbel.digest import digest_of
from umbel.errors import FormatError, Incompatible, NotThere, Rejected
from umbel.link.tasks import task_of
from umbel.server.control import ControlDesk
from umbel.server.counts import Counts
from umbel.server.people import Person
from umbel.server.results import pages_of
from umbel.server.runs import AT_ONCE
from umbel.server.uploads import Uploads
from umbel.store.sql.rows import run_of


def test_a_large_blob_that_is_no_arrays_fails_this_client_and_nothing_else(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            run = await place.submit(plain(50_000, quorum=0.0))
            task = await hand.task()
            junk = b"junk" * 50_000
            assert (await hand.write(junk)).complete
            with pytest.raises(Rejected, match="are no arrays"):
                await hand.report(task, blob_of(junk, inside=False))
            async with asyncio.timeout(PATIENCE):
                assert (await place.ended(run)).status == "finished"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight": -1.0}, "weight is -1"),
        ({"metrics": '{"loss": {"$float": "nan"}}'}, "'loss' is nan"),
        ({"metrics": "[" * 70_000}, "metrics has 70,000 characters"),
        ({"arrays": wire.Blob(digest=b"short")}, "digest has 5 bytes"),
        ({"kind": "gradient"}, "update.kind is 'gradient'"),
    ],
)
def test_who_is_told_that_an_answer_does_not_fit_is_not_waited_for(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            run = await place.submit(plain(quorum=0.0))
            task = await hand.task()
            update = wire.Update(kind="model", arrays=blob_of(trained(task)), weight=1)
            update.MergeFrom(wire.Update(**changes))
            with pytest.raises(Rejected, match=words):
                await hand.link.report(wire.ReportRequest(id=task.id, update=update))
            async with asyncio.timeout(PATIENCE):
                row = await place.ended(run)
            assert row.status == "finished"
            assert place.store is not None
            [failure] = pages_of(place.store, row, models=False)[0]["failures"]["$tuple"]
            assert failure["fields"]["code"] == "bad-update"
            assert words in failure["fields"]["message"]

    asyncio.run(story())


def test_a_failure_that_says_too_much_is_a_failure(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            run = await place.submit(plain(quorum=0.0))
            task = await hand.task()
            failure = wire.Failure(code="client-failed", message="m" * 9000)
            response = await hand.link.report(wire.ReportRequest(id=task.id, failure=failure))
            assert response.verdict == wire.ReportResponse.VERDICT_ACCEPTED
            async with asyncio.timeout(PATIENCE):
                assert (await place.ended(run)).status == "finished"

    asyncio.run(story())


@pytest.mark.parametrize("size", [3, 50_000])
def test_a_client_without_blake3_names_what_it_sends_by_its_sha_256(tmp_path: Path, size: int) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            run = await place.submit(plain(size, rounds=2))
            for _ in range(2):
                task = await hand.task()
                data = trained(task, size)
                name = hashlib.sha256(data).digest()
                if inside := len(data) <= wire.INLINE:
                    blob = wire.Blob(digest=name, size=len(data), content=data)
                else:
                    blob = wire.Blob(digest=name, size=len(data))
                    assert (await hand.write(data, name=name)).complete
                assert await hand.report(task, blob) == wire.ReportResponse.VERDICT_ACCEPTED, inside
            async with asyncio.timeout(PATIENCE):
                row = await place.ended(run)
            assert row.status == "finished"
            assert place.store is not None
            found = pages_of(place.store, row, models=True)[0]["state"]["fields"]["model"]["$arrays"]
            assert np.all(place.store.blobs.fetch(found)["w"] == 2)

    asyncio.run(story())


def control_of(place: Place) -> ControlDesk:
    assert place.store is not None
    assert place.hub is not None
    assert place.runs is not None
    assert place.desk is not None
    return ControlDesk(place.store, place.hub, place.runs, Uploads(place.store, Counts()), nodes=place.desk)


BOB = Person("bob", "runner")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "x" * 201}, "name is 'xxx"),
        ({"name": "\x1b]0;mine\x07"}, "name is '\\x1b"),
        ({"key": "k" * 201}, "key is 'kkk"),
        ({"dataset": "zero\0"}, "dataset is 'zero"),
        ({"labels": [wire.Label(name="country", value="d" * 201)]}, "labels"),
        ({"nodes": ["../berlin"]}, "nodes is '../berlin'"),
        ({"app": wire.App(name="app", digest=bytes(32), version="1" * 201)}, "app.version has 201 characters"),
        ({"app": wire.App(name="app", digest=bytes(31))}, "app.digest has 31 bytes"),
        ({"submission": json.dumps({"fields": {"rounds": 1 << 70}})}, "rounds is 1180591620717411303424"),
        ({"submission": json.dumps({"fields": {"rounds": -1}})}, "rounds is -1"),
    ],
)
def test_what_no_node_accepts_is_not_taken_in(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as (place, _):
            app = wire.App(name="app", digest=bytes(32))
            request = wire.SubmitRunRequest(**{"submission": "{}", "app": app, **changes})
            with pytest.raises(FormatError) as caught:
                await control_of(place).submit_run(BOB, request)
            assert words in caught.value.what
            assert place.store is not None
            assert place.store.runs() == []

    asyncio.run(story())


def test_a_task_that_no_node_accepts_ends_its_run_and_no_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def many(question: Any, place: Any) -> wire.Task:
        task = task_of(question, place)
        task.needs.extend("x" for _ in range(257))
        return task

    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            with monkeypatch.context() as patched:
                patched.setattr("umbel.server.runner.task_of", many)
                async with asyncio.timeout(PATIENCE):
                    row = await place.ended(await place.submit(plain()))
            assert row.status == "failed"
            assert "needs has 257 entries" in row.reason
            run = await place.submit(plain(), key="another")
            task = await hand.task()
            await hand.report(task, blob_of(trained(task)))
            async with asyncio.timeout(PATIENCE):
                assert (await place.ended(run)).status == "finished"

    asyncio.run(story())


def test_many_small_arrays_travel_beside_a_task_that_they_would_make_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {f"array {n}": Arrays({"w": np.full(8000, float(n))}) for n in range(100)}  # 6.4 MB

    def large(question: Any, place: Any) -> wire.Task:
        task = task_of(question, place)
        for name, arrays in more.items():
            task.extra.add(name=name).blob.CopyFrom(place(arrays))
        return task

    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            monkeypatch.setattr("umbel.server.runner.task_of", large)
            await place.submit(plain())
            task = await hand.task()
            assert task.ByteSize() < wire.MESSAGE
            for named in task.extra:
                pieces = [p async for p in hand.link.read_blob(wire.ReadBlobRequest(digest=named.blob.digest))]
                assert Arrays.from_bytes(b"".join(map(bytes, pieces))).digest() == more[named.name].digest()

    asyncio.run(story())


def test_failures_that_are_as_long_as_they_may_be_keep_nobody_from_the_result(tmp_path: Path) -> None:
    """In JSON each of these characters takes six."""
    failure = wire.Failure(code="x", message="\x01" * 8000, traceback="\u20ac" * 60_000)

    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            run = await place.submit(plain(rounds=40, quorum=0.0))
            for _ in range(40):
                await hand.link.report(wire.ReportRequest(id=(await hand.task()).id, failure=failure))
            async with asyncio.timeout(PATIENCE):
                await place.ended(run)
            desk, failures, pages = control_of(place), 0, 1
            for page in range(100):
                if page == pages:
                    break
                got = await desk.get_run(Person("alice", "runner"), wire.GetRunRequest(run=run, page=page))
                assert got.ByteSize() < wire.MESSAGE
                pages = got.pages
                failures += len(json.loads(got.result)["failures"]["$tuple"])
            assert failures == 40
            assert pages > 1

    asyncio.run(story())


def test_the_longest_traceback_of_a_client_stands_in_the_result_as_a_simulation_shows_it(tmp_path: Path) -> None:
    longest = trace(ValueError("x" * 100_000))

    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            run = await place.submit(plain(quorum=0.0))
            failure = wire.Failure(code="x", message="words", traceback=longest)
            await hand.link.report(wire.ReportRequest(id=(await hand.task()).id, failure=failure))
            async with asyncio.timeout(PATIENCE):
                row = await place.ended(run)
            assert place.store is not None
            (found,) = pages_of(place.store, row, models=True)[0]["failures"]["$tuple"]
            assert found["fields"]["traceback"] == longest

    asyncio.run(story())


def test_what_a_node_sends_and_never_names_is_bounded(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            run = await place.submit(plain(50_000))
            task = await hand.task()
            assert place.store is not None
            blobs = place.store.blobs
            before = sum(path.stat().st_size for path in tmp_path.glob("*/*"))
            for n in range(30):
                assert (await hand.write(n.to_bytes(1, "big") * 1_000_000)).complete
                assert (await hand.write(n.to_bytes(1, "big") * 60_000)).complete
                assert not (await hand.write(n.to_bytes(1, "big") * 400_000, size=900_000)).complete
            after = sum(path.stat().st_size for path in tmp_path.glob("*/*"))
            assert after - before < 5_000_000
            assert len(blobs.fresh(3600.0)) < 10
            with pytest.raises(Rejected, match=r"3,000,000 bytes, and 1,[0-9,]* may be in what node 'berlin' is asked"):
                await hand.write(bytes(3_000_000))
            data = trained(task, 50_000)
            assert (await hand.write(data)).complete
            await hand.report(task, blob_of(data, inside=False))
            async with asyncio.timeout(PATIENCE):
                assert (await place.ended(run)).status == "finished"

    asyncio.run(story())


def test_the_number_of_blobs_that_a_node_sends_and_never_names_is_bounded(tmp_path: Path) -> None:
    """Each is a file, and a few hundred bytes of memory, however small it is."""

    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            await place.submit(plain())
            await hand.task()
            for n in range(300):
                assert not (await hand.write(b"?", name=n.to_bytes(32, "big"), size=2)).complete
            assert place.desk is not None
            assert len(list((tmp_path / "incoming").iterdir())) < 100
            assert len(place.desk._unnamed._sent[hand.name]) < 100

    asyncio.run(story())


def test_nobody_waits_for_the_disk_when_a_blob_is_let_go(tmp_path: Path) -> None:
    """To remove a large model takes long; and somebody may be writing another one in its place."""

    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            await place.submit(plain(50_000))
            await hand.task()
            assert place.store is not None
            first, *others = [n.to_bytes(1, "big") * 1_000_000 for n in range(4)]
            assert (await hand.write(first)).complete
            held, go_on, others_went_on = asyncio.Event(), threading.Event(), list[bool]()
            loop, lock = asyncio.get_running_loop(), place.store.blobs._alone(digest_of(first).hex())

            def write() -> None:
                with lock:
                    loop.call_soon_threadsafe(held.set)
                    others_went_on.append(go_on.wait(PATIENCE))

            writing = asyncio.create_task(asyncio.to_thread(write))
            await held.wait()
            sending = asyncio.gather(*map(hand.write, others))
            await asyncio.wait([sending], timeout=0)
            while place.desk is not None and digest_of(first).hex() in place.desk._unnamed._sent[hand.name]:
                await asyncio.sleep(0)
            go_on.set()
            await asyncio.gather(writing, sending)
            assert others_went_on == [True]
            assert not (await hand.link.stat_blob(wire.StatBlobRequest(digest=digest_of(first)))).complete

    asyncio.run(story())


def test_what_is_let_go_stays_for_whom_names_it(tmp_path: Path) -> None:
    """Two nodes send the same bytes; one has named them, and the other sends more and more."""

    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            other = Hand(place, "lyon")
            await place.enrol(other.name, other.identity)
            await other.connect()
            run = await place.submit(plain(50_000, min_nodes=2))
            task, its = await hand.task(), await other.task()
            data = trained(task, 50_000)
            assert (await other.write(data)).complete
            assert (await hand.write(data)).complete
            await hand.report(task, blob_of(data, inside=False))
            for n in range(10):
                assert (await other.write(n.to_bytes(1, "big") * 1_000_000)).complete
            assert (await other.link.stat_blob(wire.StatBlobRequest(digest=blob_of(data).digest))).complete
            await other.report(its, blob_of(data, inside=False))
            async with asyncio.timeout(PATIENCE):
                assert (await place.ended(run)).status == "finished"
            await other.away()

    asyncio.run(story())


def test_a_node_that_says_too_much_of_itself_gets_no_session(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as (_, hand):
            labels = [wire.Label(name=f"label {n}", value="x" * 200) for n in range(256)]
            with pytest.raises(Rejected, match="says of itself has"):
                await hand.connect(labels=labels, datasets=["d" * 200] * 256)

    asyncio.run(story())


def test_nothing_that_a_node_says_reaches_a_terminal_as_it_is(tmp_path: Path) -> None:
    clear = "\x1b[2J"

    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            run = await place.submit(plain(rounds=2, quorum=0.0))
            task = await hand.task()
            metrics = wire.Update(
                kind="model", arrays=blob_of(trained(task)), weight=1, metrics=json.dumps({clear: 1.0})
            )
            with pytest.raises(Rejected, match="a metric is called"):
                await hand.link.report(wire.ReportRequest(id=task.id, update=metrics))
            task = await hand.task()
            failure = wire.Failure(code="x", message=f"one\n\ttwo{clear}\u20ac", traceback=clear)
            await hand.link.report(wire.ReportRequest(id=task.id, failure=failure))
            async with asyncio.timeout(PATIENCE):
                await place.ended(run)
            assert place.store is not None
            first, said = (event.content for event in place.store.events(run) if event.kind == "failure")
            assert clear not in first["message"]
            assert (said["message"], said["traceback"]) == ("one\n\ttwo\\x1b[2J\u20ac", "\\x1b[2J")
            strange = wire.Label(name="country", value=clear)
            app = wire.App(name=clear, digest=bytes(32))
            for offer in ({"labels": [strange]}, {"datasets": [clear]}, {"apps": [app]}, {"program": clear}):
                with pytest.raises(Rejected, match="leave out what cannot be printed"):
                    await hand.connect(**offer)

    asyncio.run(story())


def test_who_reads_that_there_is_no_common_version_learns_which_side_to_update(tmp_path: Path) -> None:
    """It is read at the other side, where "this side" would be the wrong one."""

    async def story() -> None:
        async with one_node(tmp_path) as (place, _):
            assert place.desk is not None
            opening = wire.OpenSessionRequest(name="berlin", versions=[9])
            for asked in (
                place.desk.open_session(opening),
                control_of(place).get_server(BOB, wire.GetServerRequest(versions=[9])),
            ):
                with pytest.raises(Incompatible, match="speaks version 9 of the protocol, the server 1") as caught:
                    await asked
                assert "update the server, which is the older one" in caught.value.advice

    asyncio.run(story())


def test_a_run_says_who_of_those_that_it_has_asked_is_away(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            desk, run = control_of(place), await place.submit(plain())

            async def reasons() -> set[str]:
                (listed,) = (await desk.list_runs(BOB, wire.ListRunsRequest())).runs
                return {listed.reason, (await desk.get_run(BOB, wire.GetRunRequest(run=run))).run.reason}

            task = await hand.task()
            assert await reasons() == {""}
            await hand.away()
            assert await reasons() == {"train of round 1 waits for who is away: berlin"}
            await hand.connect()
            assert (await hand.task()).id == task.id
            assert await reasons() == {""}
            await hand.report(task, blob_of(trained(task)))

    asyncio.run(story())


def test_who_was_not_in_time_is_named(tmp_path: Path) -> None:
    async def story() -> str:
        async with one_node(tmp_path) as (place, _), asyncio.timeout(PATIENCE):
            return (await place.ended(await place.submit(plain(deadline=0.01, on_miss="stop")))).reason

    what, _, advice = asyncio.run(story()).partition("\n  What to do: ")
    assert what == (
        "round 1, train: 0 of 1 clients answered within 0.01 seconds, too few for the quorum of 100%; "
        "not in time: berlin."
    )
    assert advice.startswith("give clients more time with umbel.rounds(deadline=), or ")


def test_a_run_that_waits_for_its_turn_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as (place, _):
            desk = control_of(place)
            runs = [await place.submit(plain(), key=str(number)) for number in range(AT_ONCE + 2)]

            async def reason(run: str) -> str:
                return (await desk.get_run(BOB, wire.GetRunRequest(run=run))).run.reason

            assert await reason(runs[-1]) == "waits its turn: 8 under way, 1 more before it"
            said = {"status": "queued", "reason": await reason(runs[-1])}
            async with asyncio.timeout(PATIENCE):  # it is kept a moment later
                async for event in desk.watch_run(BOB, wire.WatchRunRequest(run=runs[-1])):
                    if json.loads(event.content) == said:
                        break
            assert place.runs is not None
            await place.runs.stop(place.runs.find(runs[-2]), "alice")
            assert (await reason(runs[-1])).endswith("0 more before it")

    asyncio.run(story())


def test_what_a_client_has_printed_stands_in_the_run_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umbel.server.runs._PRINTED", 30)  # characters

    async def story() -> None:
        async with one_node(tmp_path) as (place, hand):
            run = await place.submit(plain(rounds=4))
            for said in ("loss 0.5\n", "", "\x1b[2Jpainted over the terminal", "no more"):
                task = await hand.task()
                update = wire.Update(kind="model", arrays=blob_of(trained(task)), weight=1)
                await hand.link.report(wire.ReportRequest(id=task.id, update=update, output=said))
            await place.ended(run)
            assert place.store is not None
            events = [(event.kind, dict(event.content)) for event in place.store.events(run)]
            printed = [content for kind, content in events if kind == "output"]
            assert printed == [
                {"client": "berlin", "round": 1, "text": "loss 0.5\n"},
                {"client": "berlin", "round": 3, "text": "\\x1b[2Jpainted over the terminal"},
            ]
            (told,) = [content["message"] for kind, content in events if kind == "log"]
            assert told.startswith("clients print more than is kept here")

    asyncio.run(story())


def test_what_is_listed_comes_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umbel.server.control._PAGE", 500)  # bytes

    async def story() -> None:
        async with one_node(tmp_path) as (place, _):
            desk = control_of(place)
            for n in range(100):
                await desk.create_ticket(BOB, wire.CreateTicketRequest(uses=n + 1, seconds=60))
            found: list[int] = []
            pages = (await desk.list_tickets(BOB, wire.ListTicketsRequest())).pages
            assert pages > 2
            for page in range(pages):
                answer = await desk.list_tickets(BOB, wire.ListTicketsRequest(page=page))
                assert 0 < answer.ByteSize() < 600
                found += [ticket.uses for ticket in answer.tickets]
            assert place.store is not None
            assert sorted(found) == sorted(ticket.uses for ticket in place.store.tickets())
            assert not (await desk.list_tickets(BOB, wire.ListTicketsRequest(page=pages))).tickets

    asyncio.run(story())


def test_what_was_submitted_is_read_for_its_own_run_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be large, and there may be many."""
    read: list[int] = []

    def counted(row: Any) -> Any:
        read.append(len(row.submission))
        return run_of(row)

    async def story() -> None:
        async with one_node(tmp_path) as (place, _):
            desk, app = control_of(place), wire.App(name="nobody-has-it", digest=bytes(32))
            large = json.dumps({"x": "y" * 100_000})
            for n in range(5):
                request = wire.SubmitRunRequest(submission=large, key=f"{n}", name=f"run {n}", app=app)
                await place.ended((await desk.submit_run(BOB, request)).run.id)
            monkeypatch.setattr("umbel.store.sql.store.run_of", counted)
            monkeypatch.setattr("umbel.store.sql.runs.run_of", counted)
            runs = (await desk.list_runs(BOB, wire.ListRunsRequest())).runs
            assert [run.name for run in runs] == [f"run {n}" for n in (4, 3, 2, 1, 0)]
            assert sum(read) == 0
            for name in (runs[0].id, runs[0].id[:8], "run 4"):
                assert (await desk.get_run(BOB, wire.GetRunRequest(run=name))).run.id == runs[0].id
            assert sum(read) < 4 * len(large)
            for name in ("run", "run%", "", "r\0", runs[0].id[:3], "x" * 70_000):
                with pytest.raises(NotThere):
                    await desk.get_run(BOB, wire.GetRunRequest(run=name))

    asyncio.run(story())

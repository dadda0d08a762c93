"""A node from its connection to the delivered answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from tests.unit.node.scripted import PATIENCE, Script, make_app, on_a_loop, running
from umbel import wire
from umbel.arrays import Arrays
from umbel.errors import DiskFull, InUse, NotAllowed, Rejected, Unauthenticated
from umbel.link.identity import Identity
from umbel.node.backoff import Backoff
from umbel.node.config import Dataset, NodeConfig, Policy
from umbel.node.installed import InstalledApp
from umbel.node.journal import read_journal
from umbel.node.observer import Observer

LARGE = Arrays({"w": np.arange(200_000.0)})


@pytest.fixture
def app(tmp_path: Path) -> InstalledApp:
    return make_app(tmp_path / "app")


class Told(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def connected(self, opened: wire.OpenSessionResponse) -> None:
        self.said.append(f"connected to {opened.program}")

    def disconnected(self, reason: str, wait: float) -> None:
        assert wait <= 1.05
        self.said.append(f"disconnected: {reason}")

    def began(self, task: wire.Task) -> None:
        self.said.append(f"began {task.id.exchange}")

    def finished(self, task: wire.Task, report: wire.ReportRequest) -> None:
        self.said.append(f"finished {task.id.exchange} {report.WhichOneof('outcome')}")

    def delivered(self, id: wire.TaskId, verdict: str) -> None:
        self.said.append(f"delivered {id.exchange} {verdict}")


@on_a_loop
async def test_tasks_are_done_and_told_of(app: InstalledApp, tmp_path: Path) -> None:
    told = Told()
    config = NodeConfig(labels={"country": "de"}, slots=2)
    async with running(config, app, tmp_path / "node", observer=told) as script:
        update = await script.answer(script.ask(script.task(app)))
        metrics = await script.answer(script.ask(script.task(app, exchange=2, kind="evaluate", state=1)))
        opened = script.opened[0]
        assert [app.name for app in opened.apps] == ["myfed"]
        assert list(opened.apps[0].handlers) == ["evaluate", "site", "train"]
        assert opened.slots == 2
        assert [(label.name, label.value) for label in opened.labels] == [("country", "de")]
        assert list(opened.datasets) == ["default"]
    assert update.update.kind == "model"
    assert update.update.weight == 3
    assert update.state
    assert metrics.metrics.weight == 2
    assert not metrics.state
    assert told.said[:3] == ["connected to script", "began 1", "finished 1 update"]
    events = [line["event"] for line in read_journal(tmp_path / "node" / "journal")]
    assert [e for e in events if e != "delivered"] == ["asked", "sent", "asked", "sent"]
    sent = next(line for line in read_journal(tmp_path / "node" / "journal") if line["event"] == "sent")
    assert sent["submitter"] == "alice"
    assert sent["metrics"] == ["loss"]
    assert sent["blobs"] == [{"digest": update.update.arrays.digest.hex(), "bytes": update.update.arrays.size}]


@on_a_loop
async def test_redoing_a_task_gives_the_same_bits(app: InstalledApp, tmp_path: Path) -> None:
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        first = await script.answer(script.ask(script.task(app)))
        second = await script.answer(script.ask(script.task(app, exchange=2, state=1)))
        third = await script.answer(script.ask(script.task(app, exchange=3, state=1)))  # 2 was not counted
        again = await script.answer(script.ask(script.task(app, exchange=2, state=1, config={"do": "pass"})), 2)
    assert first.update.arrays.digest != second.update.arrays.digest
    assert third.update.arrays.digest != second.update.arrays.digest  # another round has other random numbers
    assert again.update.arrays.digest == second.update.arrays.digest


@on_a_loop
async def test_a_lost_state_is_said(app: InstalledApp, tmp_path: Path) -> None:
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        report = await script.answer(script.ask(script.task(app, exchange=9, state=8)))
        assert report.failure.code == "state-lost"
        assert "that of exchange 8" in report.failure.message


@on_a_loop
async def test_the_server_does_not_learn_how_directories_are_called(
    app: InstalledApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        task = script.task(app, model=LARGE)
        in_the_way = tmp_path / "node" / "cache" / f"{task.model.digest.hex()}.part"
        in_the_way.mkdir(parents=True)
        report = await script.answer(script.ask(task))
    assert report.failure.code == "store"
    assert str(tmp_path) not in report.failure.message
    assert "node berlin cannot use its own files" in report.failure.message
    assert str(in_the_way) in caplog.text  # the owner does


@on_a_loop
async def test_what_the_policy_refuses_is_not_begun(app: InstalledApp, tmp_path: Path) -> None:
    config = NodeConfig(data={"heart": Dataset(name="heart", allow=("alice",))}, policy=Policy(max_update_bytes=1000))
    async with running(config, app, tmp_path / "node") as script:
        report = await script.answer(script.ask(script.task(app, submitter="bob")))
        assert report.failure.code == "refused"
        assert "node berlin does not let 'bob' use data set 'heart'; its owner permits: alice" in report.failure.message
        report = await script.answer(script.ask(script.task(app, exchange=2, model=LARGE)))
        assert report.failure.code == "refused"
        assert script.incoming == {}
    events = [line["event"] for line in read_journal(tmp_path / "node" / "journal")]
    assert [e for e in events if e != "delivered"] == ["asked", "refused", "asked", "refused"]


@on_a_loop
async def test_large_blobs_cross_once_each_way_and_go_on_where_they_broke_off(
    app: InstalledApp, tmp_path: Path
) -> None:
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        script.break_read_after, script.break_write_after = 1 << 19, 1 << 20
        report = await script.answer(script.ask(script.task(app, model=LARGE)))
        assert [offset for _, offset in script.reads] == [0, 1 << 19]
        assert script.writes == [0, 1 << 20]
        assert not report.update.arrays.HasField("content")
        assert len(script.arrays(report.update.arrays)["w"]) == len(LARGE["w"])
        await script.answer(script.ask(script.task(app, exchange=2, kind="evaluate", model=LARGE, state=1)))
        assert len(script.reads) == 2
    assert list((tmp_path / "node" / "own" / "outbox" / "files").iterdir()) == []


@on_a_loop
async def test_a_duplicate_is_answered_once_and_a_finished_one_again_with_the_same_bytes(
    app: InstalledApp, tmp_path: Path
) -> None:
    told = Told()
    async with running(NodeConfig(), app, tmp_path / "node", observer=told) as script:
        task = script.task(app, config={"do": "time.sleep(0.2)"})
        script.ask(task)
        script.ask(task)
        first = await script.answer(task)
        script.ask(task)
        second = await script.answer(task, 2)
        assert first == second
        other = script.task(app, attempt=2, config={"do": "time.sleep(0.2)"})
        third = await script.answer(script.ask(other), 3)
        assert third.id.attempt == 2
        assert third.update == first.update
    assert told.said.count("began 1") == 1


@on_a_loop
async def test_what_the_server_asks_for_again_is_done_again_where_it_failed(app: InstalledApp, tmp_path: Path) -> None:
    """A run that has failed is resumed, when what was the matter here is mended."""
    told, mended = Told(), tmp_path / "mended"
    async with running(NodeConfig(), app, tmp_path / "node", observer=told) as script:
        task = script.task(app, config={"do": f"assert os.path.exists({str(mended)!r})"})
        assert (await script.answer(script.ask(task))).failure.code == "client-failed"
        script.ask(script.task(app, exchange=2, kind="evaluate"))
        await script.until(lambda: "delivered 1 accepted" in told.said)
        mended.touch()
        assert (await script.answer(script.ask(task), 2)).WhichOneof("outcome") == "update"


@on_a_loop
async def test_an_answer_whose_state_is_here_no_more_is_made_again(app: InstalledApp, tmp_path: Path) -> None:
    """Of an exchange that missed its quorum, and of those behind it."""
    told = Told()
    async with running(NodeConfig(), app, tmp_path / "node", observer=told) as script:
        first = script.ask(script.task(app))
        answer = await script.answer(first)
        await script.answer(script.ask(script.task(app, exchange=2)))
        again = await script.answer(script.ask(first), 2)
        assert again.update.arrays.digest == answer.update.arrays.digest
        after = await script.answer(script.ask(script.task(app, exchange=3, kind="evaluate", state=1)))
    assert after.WhichOneof("outcome") == "metrics"


@on_a_loop
async def test_answers_outlive_a_server_that_is_away(app: InstalledApp, tmp_path: Path) -> None:
    told = Told()
    async with running(NodeConfig(), app, tmp_path / "node", observer=told) as script:
        ready = tmp_path / "ready"
        do = f"open({str(ready)!r}, 'w')\nwhile os.path.exists({str(ready)!r}): time.sleep(0.01)"
        task = script.ask(script.task(app, config={"do": do}))
        async with asyncio.timeout(PATIENCE):
            while not ready.exists():
                await asyncio.sleep(0.01)
        script.down = True
        script.say(None)
        ready.unlink()
        async with asyncio.timeout(PATIENCE):
            while "finished 1 update" not in told.said:
                await asyncio.sleep(0.01)
        assert script.reports == []
        script.down = False
        assert (await script.answer(task)).HasField("update")
        assert len(script.opened) == 2


@on_a_loop
async def test_goodbye_is_heard(app: InstalledApp, tmp_path: Path) -> None:
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        script.say(wire.SubscribeResponse(goodbye=wire.Goodbye(reason="it is restarted", wait=0.01)))
        await script.until(lambda: len(script.opened) == 2)
        assert (await script.answer(script.ask(script.task(app)))).HasField("update")


@on_a_loop
async def test_a_server_that_forgot_the_session_is_asked_for_another(app: InstalledApp, tmp_path: Path) -> None:
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        await script.until(lambda: script.opened)
        script.sessions.end("berlin")
        report = await script.answer(script.ask(script.task(app)))
        assert report.HasField("update")
        assert len(script.opened) == 2


class Revoked(Script):
    """A server that does not want the node."""

    async def open_session(self, request: wire.OpenSessionRequest) -> wire.OpenSessionResponse:
        raise NotAllowed(f"node {request.name!r} was revoked")


@on_a_loop
async def test_a_revoked_node_ends(app: InstalledApp, tmp_path: Path) -> None:
    script = Revoked(Identity.at(tmp_path / "node" / "key").public)
    with pytest.raises(NotAllowed, match="was revoked"):
        async with running(NodeConfig(), app, tmp_path / "node", script=script):
            await script.until(lambda: False)


class Strange(Script):
    """Somebody answers with a certificate that is not the server's, at first or for a while."""

    def __init__(self, key: bytes, *strange: int) -> None:
        super().__init__(key)
        self.calls, self.strange = 0, strange

    async def challenge(self, request: wire.ChallengeRequest) -> wire.ChallengeResponse:
        self.calls += 1
        if self.calls in self.strange:
            raise Unauthenticated("the certificate is signed by an authority that is not known here")
        return await super().challenge(request)


@on_a_loop
async def test_a_node_that_was_connected_outlasts_a_wrong_certificate(app: InstalledApp, tmp_path: Path) -> None:
    """As of a portal on the way, or where the name leads elsewhere until it is mended."""
    script = Strange(Identity.at(tmp_path / "node" / "key").public, *range(2, 12))
    async with running(NodeConfig(), app, tmp_path / "node", script=script, draw=lambda: 0.0):
        await script.until(lambda: script.opened)
        script.say(None)
        await script.until(lambda: len(script.opened) == 2)
        assert (await script.answer(script.ask(script.task(app)))).HasField("update")


@on_a_loop
async def test_a_node_that_meets_a_stranger_at_its_start_ends(app: InstalledApp, tmp_path: Path) -> None:
    script = Strange(Identity.at(tmp_path / "node" / "key").public, *range(1, 100))
    with pytest.raises(Unauthenticated, match="not known here"):
        async with running(NodeConfig(), app, tmp_path / "node", script=script, draw=lambda: 0.0):
            await script.until(lambda: False)


@on_a_loop
async def test_one_node_works_in_a_directory(app: InstalledApp, tmp_path: Path) -> None:
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        await script.until(lambda: script.opened)
        with pytest.raises(InUse):
            async with running(NodeConfig(), app, tmp_path / "node") as other:
                await other.until(lambda: False)


@on_a_loop
async def test_slots_are_work_at_once(app: InstalledApp, tmp_path: Path) -> None:
    async with running(NodeConfig(slots=2), app, tmp_path / "node") as script:
        mark = str(tmp_path / "mark-")
        do = f"open({mark!r} + str(ctx.round), 'w')\n"
        do += f"while not all(os.path.exists({mark!r} + n) for n in '12'): time.sleep(.01)"
        tasks = [script.ask(script.task(app, exchange=i, run=f"{i}" * 32, config={"do": do})) for i in (1, 2)]
        for task in tasks:
            assert (await script.answer(task)).HasField("update")


def test_the_wait_before_another_try() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.next(float(t)) for t in range(0, 60, 10)] == [1.0] * 6
    assert [backoff.next(t, 0) for t in (61.0, 62.0, 64.0, 70.0, 90.0)] == [2.0, 4.0, 8.0, 16.0, 30.0]
    assert backoff.next(100.0, 5.0) == 35.0
    backoff.reset()
    assert backoff.next(1000.0) == 1.0


@on_a_loop
async def test_what_the_server_does_not_take_is_said_to_have_failed(app: InstalledApp, tmp_path: Path) -> None:
    """Otherwise it would wait, for good if the round has no deadline."""
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        script.refusals = [Rejected("800 bytes are here, and these begin at 0")] * 2
        task = script.ask(script.task(app, model=LARGE))
        failed = await script.answer(task)
        assert failed.failure.retryable
        assert failed.failure.code == "rejected"
        assert "does not take the answer of node berlin: 800 bytes are here" in failed.failure.message
        script.ask(script.task(app, model=LARGE, attempt=2))
        again = await script.answer(task, 2)
    assert again.WhichOneof("outcome") == "update"
    assert again.id.attempt == 2


@on_a_loop
async def test_what_is_refused_once_is_sent_again_and_not_made_again(app: InstalledApp, tmp_path: Path) -> None:
    """As where another connection has written bytes of the same blob meanwhile."""
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        script.refusals = [Rejected("the bytes do not have the digest; all of them were dropped")]
        answer = await script.answer(script.ask(script.task(app, model=LARGE)))
        assert answer.WhichOneof("outcome") == "update"
        assert answer.id.attempt == 1


@on_a_loop
async def test_an_answer_that_the_server_has_lost_is_made_again(app: InstalledApp, tmp_path: Path) -> None:
    """The large arrays of one that it had taken are here no more."""
    told = Told()
    async with running(NodeConfig(), app, tmp_path / "node", observer=told) as script:
        task = script.ask(script.task(app, model=LARGE))
        first = await script.answer(task)
        script.ask(script.task(app, exchange=2, kind="evaluate", state=1))
        await script.until(lambda: "delivered 1 accepted" in told.said)
        del script.blobs[first.update.arrays.digest]
        script.ask(task)
        assert (await script.answer(task, 2)).failure.code == "not-there"
        script.ask(script.task(app, model=LARGE, attempt=2))
        again = await script.answer(task, 3)
        assert again.update.arrays.digest in script.blobs
    assert again.update.arrays.digest == first.update.arrays.digest


@on_a_loop
async def test_an_answer_that_cannot_be_kept_is_said_to_have_failed(
    app: InstalledApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is not even room to keep that; so the server is told at once, and need not wait."""

    def no_room(*_: object) -> None:
        raise DiskFull("no room left")

    async with running(NodeConfig(), app, tmp_path / "node") as script:
        with monkeypatch.context() as patched:
            patched.setattr("umbel.node.outbox.Outbox.finish", no_room)
            report = await script.answer(script.ask(script.task(app)))
            assert (report.failure.code, report.failure.retryable) == ("disk-full", True)
        again = await script.answer(script.ask(script.task(app, attempt=2)), 2)
    assert again.WhichOneof("outcome") == "update"


@on_a_loop
async def test_a_server_that_gives_more_and_more_tasks_is_left(app: InstalledApp, tmp_path: Path) -> None:
    told = Told()
    async with running(NodeConfig(), app, tmp_path / "node", observer=told) as script:
        for exchange in range(1, 60):
            script.ask(script.task(app, exchange=exchange, config={"do": "time.sleep(600)"}))
        await script.until(lambda: len(script.opened) > 1)
    assert any("more tasks than this node has slots, which are 1" in words for words in told.said)

"""What a node keeps while it runs, and for how long."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.unit.node.scripted import PATIENCE, RUN, make_app, on_a_loop
from umbel import wire
from umbel.node.children import Begin, Child, Children
from umbel.node.config import Limits, NodeConfig
from umbel.node.installed import InstalledApp
from umbel.node.outbox import Finished, Key
from umbel.node.states import NodeStates
from umbel.node.workshop import Workshop


def begin_of(app: InstalledApp) -> Begin:
    return Begin(
        source=str(app.source),
        object=app.app.object,
        digest=app.app.digest.hex(),
        dataset="default",
        client="berlin",
        labels={},
        site={},
        seed=1,
        threads=1,
        devices="auto",
        run_as="",
    )


@on_a_loop
async def test_states_of_old_runs_go_while_the_node_runs(tmp_path: Path) -> None:
    """Not when it is started again, which may be in a year."""
    place = tmp_path / "own" / "states"
    states = NodeStates(place, keep=0, now=time.time)
    states.write(RUN, 1, {"x": 1}, after=0)
    states.close()
    now = (place / f"{RUN}.sqlite").stat().st_mtime
    config = NodeConfig().with_(limits=Limits(states=100.0))
    shop = Workshop(config, [], tmp_path, environment={}, now=lambda: now)
    try:
        await shop.recovered()
        await shop.trim()
        assert list(place.iterdir())
        now += 101.0
        await shop.trim()
        assert list(place.iterdir()) == []
    finally:
        await shop.close()


@pytest.mark.parametrize("again", [False, True])
@on_a_loop
async def test_files_of_an_answer_go_that_was_revoked_before_it_was_kept(tmp_path: Path, again: bool) -> None:
    """Or was asked for otherwise, after a server began the run anew."""
    shop = Workshop(NodeConfig(), [], tmp_path, environment={}, now=time.time)
    try:
        mine, others = (Key(RUN, exchange, "berlin") for exchange in (1, 2))
        for key in (mine, others):
            shop.outbox.path(key, "0" * 64).write_bytes(b"what a child has left")
        if again:
            assert await shop.begin(wire.Task(id=wire.TaskId(run=RUN, exchange=1, client="berlin")), b"") is None
        else:
            await shop.end(mine, "revoked", {"run": RUN, "exchange": 1, "reason": "the round is over"})
    finally:
        await shop.close()
    assert list(shop.outbox.files.iterdir()) == [shop.outbox.path(others, "0" * 64)]


@on_a_loop
async def test_an_answer_is_forgotten_though_the_session_ends_meanwhile(tmp_path: Path) -> None:
    """Nobody would come back to it before the node is started again."""
    shop, go_on = Workshop(NodeConfig(), [], tmp_path, environment={}, now=time.time), threading.Event()
    try:
        key = Key(RUN, 1, "berlin")
        shop.outbox.path(key, "0" * 64).write_bytes(b"a model")
        answer = Finished(key=key, attempt=1, question=b"", report=b"", files=("0" * 64,))
        await shop.stored(shop.outbox.finish, answer, "sent", {})
        busy = asyncio.create_task(shop.stored(go_on.wait, PATIENCE))
        ending = asyncio.create_task(shop.end(key, "delivered", {"verdict": "accepted"}))
        await asyncio.wait([busy, ending], timeout=0)
        ending.cancel()
        await asyncio.wait([ending], timeout=0)
        go_on.set()
        await asyncio.wait([busy, ending])
        assert await shop.stored(shop.outbox.waiting) == []
    finally:
        await shop.close()
    assert list(shop.outbox.files.iterdir()) == []


@on_a_loop
async def test_a_process_is_cleared_up_after_though_the_task_is_revoked_that_does_that(tmp_path: Path) -> None:
    begin = begin_of(make_app(tmp_path / "app"))
    place = tmp_path / "children"
    children = Children(place, environment={"PATH": "/usr/bin:/bin"}, warm=0, idle=600.0, log=lambda *_: None)
    begun: asyncio.Future[Child] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        async with children.child(begin) as child:
            await child.ready()
            begun.set_result(child)

    working = asyncio.create_task(work())
    async with asyncio.timeout(PATIENCE):
        child = await begun
        await child.ended.wait()
        working.cancel()
        await asyncio.wait([working])
        await children.close()
    assert list(place.iterdir()) == []


@on_a_loop
async def test_a_process_that_cannot_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin, place = begin_of(make_app(tmp_path / "app")), tmp_path / "children"
    children = Children(place, environment={}, warm=1, idle=600.0, log=lambda *_: None)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(FileNotFoundError):
        async with children.child(begin):
            raise AssertionError("it has started")
    assert list(place.iterdir()) == []
    await children.close()

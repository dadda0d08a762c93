"""Who gets which task, and what becomes of it when a node comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel import wire
from umbel.engine.exchange import Failed, Lost
from umbel.errors import EmptyPopulation, StoreError
from umbel.sample import Population
from umbel.server.hub import Hub, Notices, OpenExchange
from umbel.server.wanted import Offer, Wanted, waiting_for
from umbel.store.sql import NodeRow

APP = wire.App(name="app", version="1", digest=bytes(32))
RUN, OTHER = "a" * 32, "b" * 32


def offer(name: str, **changes: Any) -> Offer:
    return Offer(**{"name": name, "apps": [APP], "datasets": ["default"], **changes})


def exchange(run: str = RUN, sequence: int = 1, events: list[Any] | None = None) -> OpenExchange:
    def task(client: str, attempt: int) -> wire.Task:
        return wire.Task(id=wire.TaskId(run=run, exchange=sequence, client=client, attempt=attempt))

    post = (events if events is not None else []).append
    return OpenExchange(run, sequence, (1, "train"), task, post, frozenset({"ab" * 32}))


def unheard(reason: str, left: float) -> None:
    """Nobody listens."""


async def told(outbox: Notices) -> list[Any]:
    """What a node was told: (run, attempt) of a task, the runs of a revocation, "bye", or None at the end."""
    found: list[Any] = []
    while not outbox.empty():
        notice: Any = await outbox.get()
        match notice and notice.WhichOneof("notice"):
            case "task":
                found.append((notice.task.id.run, notice.task.id.attempt))
            case "revoke":
                found.append([task.run for task in notice.revoke.tasks])
            case "goodbye":
                found.append("bye")
            case _:
                found.append(None)
    return found


def in_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())  # type: ignore[arg-type]

    run.__name__ = test.__name__
    return run


@in_loop
async def test_a_task_goes_to_its_node_and_comes_again_when_that_comes_back() -> None:
    hub = Hub()
    node, outbox = hub.connect(offer("berlin"))
    hub.open(exchange())
    hub.lease(RUN, [("berlin", 1)])
    assert await told(outbox) == [(RUN, 1)]
    assert hub.disconnect(node, outbox)
    _, again = hub.connect(offer("berlin"))
    assert await told(again) == [(RUN, 1)]
    assert hub.answered(RUN, 1, "berlin") == 1
    assert hub.answered(RUN, 1, "berlin") == 0


@in_loop
async def test_it_is_said_for_whom_a_run_waits_that_is_away() -> None:
    hub = Hub()
    assert hub.awaited(RUN) == ""
    streams = {name: hub.connect(offer(name)) for name in ("oslo", "berlin")}
    hub.open(exchange())
    hub.lease(RUN, [("oslo", 1), ("berlin", 1)])
    assert hub.awaited(RUN) == ""
    for node, outbox in streams.values():
        hub.disconnect(node, outbox)
    assert hub.awaited(RUN) == "train of round 1 waits for who is away: berlin, oslo"
    hub.connect(offer("berlin"))
    assert hub.awaited(RUN) == "train of round 1 waits for who is away: oslo"
    hub.answered(RUN, 1, "oslo")
    assert hub.awaited(RUN) == ""


@in_loop
async def test_of_many_that_are_away_some_are_named() -> None:
    hub = Hub()
    hub.open(exchange())
    hub.lease(RUN, [(f"n{number:02}", 1) for number in range(12)])
    assert hub.awaited(RUN).endswith("n08, n09, and 2 more")


@in_loop
async def test_an_answer_counts_in_its_own_exchange_only() -> None:
    """It was being written down when the round's deadline passed, and the client is asked in the next exchange."""
    hub = Hub()
    _, outbox = hub.connect(offer("berlin"))
    for sequence, heard in ((1, [(RUN, 1)]), (2, [[RUN], (RUN, 1)])):
        hub.open(exchange(sequence=sequence))
        hub.lease(RUN, [("berlin", 1)])
        assert await told(outbox) == heard
    assert hub.answered(RUN, 1, "berlin") == 0
    assert hub.works("berlin"), "it still has the other task"
    assert hub.answered(RUN, 2, "berlin") == 1


@in_loop
async def test_no_more_than_its_slots_and_all_runs_in_turn() -> None:
    hub = Hub()
    _, outbox = hub.connect(offer("berlin", slots=1))
    for run in (RUN, OTHER):
        hub.open(exchange(run))
        hub.lease(run, [("berlin", 1)])
    assert await told(outbox) == [(RUN, 1)]
    order = []
    for turn in range(2, 8):
        run = RUN if turn % 2 == 0 else OTHER
        assert hub.answered(run, 1, "berlin") == (turn // 2)
        order += await told(outbox)
        hub.lease(run, [("berlin", turn // 2 + 1)])
    assert [run for run, _ in order] == [OTHER, RUN] * 3


@in_loop
async def test_who_is_revoked_stops_and_has_its_slot_back() -> None:
    hub = Hub()
    _, outbox = hub.connect(offer("berlin"))
    hub.open(exchange())
    hub.lease(RUN, [("berlin", 1)])
    hub.open(exchange(OTHER))
    hub.lease(OTHER, [("berlin", 1)])
    assert await told(outbox) == [(RUN, 1)]
    hub.close(RUN, "the round is over")
    assert await told(outbox) == [[RUN], (OTHER, 1)]
    assert not hub.works("lyon")
    assert hub.names("berlin", "ab" * 32)
    assert not hub.names("berlin", "cd" * 32)


@in_loop
async def test_who_stays_away_is_lost() -> None:
    hub, events = Hub(patience=0.01), list[Any]()
    node, outbox = hub.connect(offer("berlin"))
    hub.open(exchange(events=events))
    hub.lease(RUN, [("berlin", 1), ("never-seen", 1)])
    hub.disconnect(node, outbox)
    assert set(hub.population(Wanted(app=APP))) == {"berlin"}, "it may come back"
    while len(events) < 2:
        await asyncio.sleep(0)
    assert {(event.client, event.attempt, type(event)) for event in events} == {
        ("berlin", 1, Lost),
        ("never-seen", 1, Lost),
    }
    assert "has been away" in events[0].failure.message
    assert hub.population(Wanted(app=APP)) == {}
    assert node.working == set(), "what people and metrics are told that it works on"


@in_loop
async def test_nobody_waits_for_a_node_that_was_shut_out() -> None:
    hub, events = Hub(), list[Any]()
    _, outbox = hub.connect(offer("berlin"))
    hub.open(exchange(events=events))
    hub.lease(RUN, [("berlin", 1), ("lyon", 2)])
    for name in ("berlin", "lyon"):
        hub.forget(name, "ada has revoked it")
    assert await told(outbox) == [(RUN, 1), "bye", None]
    assert [(type(event), event.client, event.attempt) for event in events] == [
        (Failed, "berlin", 1),
        (Failed, "lyon", 2),
    ]
    assert "'berlin' is not there any more: ada has revoked it" in events[0].failure.message
    assert not hub.works("berlin")


@in_loop
async def test_a_newer_stream_ends_the_one_before_and_says_so() -> None:
    hub = Hub()
    node, first = hub.connect(offer("berlin"))
    _, second = hub.connect(offer("berlin"))
    notice = await first.get()
    assert notice is not None
    assert "another program with this node's key has connected" in notice.goodbye.reason
    assert notice.goodbye.wait > 0, "the other one must get a turn"
    assert await told(first) == [None]
    assert not hub.disconnect(node, first)
    assert node.connected
    hub.forget("berlin", "revoked")
    assert await told(second) == ["bye", None]


@in_loop
async def test_a_run_waits_for_its_nodes_and_says_for_whom() -> None:
    hub, said = Hub(), list[str]()
    hub.connect(offer("berlin"))
    hub.connect(offer("lyon", apps=[]))
    wanted = Wanted(app=APP, names=frozenset({"berlin", "lyon", "turin"}))
    gathering = asyncio.ensure_future(hub.gather(wanted, 2, 60, lambda reason, _: said.append(reason)))
    while not said:
        await asyncio.sleep(0)
    assert said[0].startswith("waits for 2 nodes; 1 is there; never seen: turin; lyon does not have the app 'app'")
    hub.connect(offer("turin", labels={"country": "it"}))
    assert await gathering == Population(("berlin", "turin"), {"turin": {"country": "it"}})


ITALIAN = {"country": "it"}


@pytest.mark.parametrize(
    ("names", "labels", "said"),
    [
        ([], {}, "away: oslo, turin"),
        ([], ITALIAN, "away: turin; not labelled country=it: berlin"),
        (["berlin", "oslo", "turin"], ITALIAN, "away: turin; not labelled country=it: berlin, oslo"),
        (["paris", "rome", "berlin"], {}, "revoked: paris; never seen: rome"),
    ],
)
def test_for_whom_a_run_waits(names: list[str], labels: Mapping[str, str], said: str) -> None:
    """Also for who was not seen since the server started."""
    enrolled = [
        *(NodeRow(name=name, public_key=name.encode()) for name in ("berlin", "oslo")),
        NodeRow(name="turin", public_key=b"turin", labels=ITALIAN),
        NodeRow(name="paris", public_key=b"paris", revoked=True),
    ]
    wanted = Wanted(app=APP, names=frozenset(names), labels=labels)
    there = 0 if labels else 1
    assert waiting_for(wanted, [offer("berlin")], enrolled, there, 2).partition("there; ")[2] == said


def test_nobody_else_has_joined() -> None:
    enrolled = [NodeRow(name="berlin", public_key=b"berlin")]
    said = waiting_for(Wanted(app=APP), [offer("berlin")], enrolled, 1, 2)
    assert said == "2 nodes; 1 is there; no other node has joined: umbel ticket create"
    enrolled.append(NodeRow(name="paris", public_key=b"paris", revoked=True))
    assert waiting_for(Wanted(app=APP), [offer("berlin")], enrolled, 1, 2) == "2 nodes; 1 is there; revoked: paris"


@in_loop
async def test_a_run_waits_on_while_the_store_cannot_be_read() -> None:
    def unreadable() -> list[NodeRow]:
        raise StoreError("the database does not answer", advice="check that it runs")

    hub, said = Hub(enrolled=unreadable, patience=0.001), list[str]()
    node, outbox = hub.connect(offer("berlin"))
    hub.disconnect(node, outbox)
    while node.present:
        await asyncio.sleep(0)
    gathering = asyncio.ensure_future(hub.gather(Wanted(app=APP), 1, 60, lambda reason, _: said.append(reason)))
    while not said:
        await asyncio.sleep(0)
    assert said == ["waits for 1 node; 0 are there; away: berlin"]
    hub.connect(offer("berlin"))
    assert (await gathering).names == ("berlin",)


@in_loop
async def test_who_has_waited_in_vain_learns_for_whom() -> None:
    hub = Hub()
    hub.connect(offer("berlin"))
    wanted = Wanted(app=APP, names=frozenset({"berlin", "turin"}))
    with pytest.raises(EmptyPopulation, match=r"waited 0\.001 seconds for 2 nodes; 1 is there; never seen: turin"):
        await hub.gather(wanted, 2, 0.001, unheard)


@in_loop
async def test_nodes_of_the_server_before_are_waited_for() -> None:
    hub = Hub(["berlin", "lyon"], wait=60)
    hub.connect(offer("berlin"))
    gathering = asyncio.ensure_future(hub.gather(Wanted(app=APP), 1, 60, unheard))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not gathering.done()
    hub.connect(offer("lyon"))
    assert (await gathering).names == ("berlin", "lyon")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"apps": [wire.App(name="app", version="2", digest=b"x" * 32)]}, "has version 2 (787878787878) of the app"),
        ({"datasets": ["a", "b"]}, "has several data sets"),
        ({"apps": []}, "it has none"),
    ],
)
def test_why_a_node_cannot_be_asked(changes: Mapping[str, Any], words: str) -> None:
    assert words in Wanted(app=APP).refusal(offer("berlin", **changes))


def test_a_program_in_another_language_plays_the_part_of_an_app() -> None:
    wanted = Wanted(app=APP)
    assert wanted.refusal(offer("node-js", apps=[wire.App(name="app")])) == ""
    assert "no data set 'heart'" in Wanted(app=APP, dataset="heart").refusal(offer("berlin"))


@given(st.integers(0, 2**32))
def test_each_task_is_handed_out_and_counted_once(seed: int) -> None:
    """Drawn comings and goings: slots are kept, and each lease ends as exactly one answer."""
    draw = Random(seed)

    async def story() -> None:
        hub = Hub()
        names = ["a", "b", "c"]
        slots = {name: draw.randint(1, 2) for name in names}
        streams: dict[str, Any] = {}
        held: dict[str, set[str]] = {name: set() for name in names}
        asked, counted = set(), list[tuple[str, str]]()
        for run in (RUN, OTHER):
            hub.open(exchange(run))
            hub.lease(run, [(name, 1) for name in names])
            asked |= {(run, name) for name in names}
        while len(counted) < len(asked):
            name = draw.choice(names)
            if name not in streams:
                held[name] = set()
                streams[name] = hub.connect(offer(name, slots=slots[name]))
            elif draw.random() < 0.25:
                hub.disconnect(*streams.pop(name))
                continue
            held[name] |= {run for run, _ in await told(streams[name][1])}
            assert len(held[name]) <= slots[name]
            if held[name] and draw.random() < 0.5:
                run = draw.choice(sorted(held[name]))
                for _ in range(draw.randint(1, 2)):  # it may be said twice
                    if hub.answered(run, 1, name):
                        counted.append((run, name))
                held[name].discard(run)
        assert len(set(counted)) == len(counted)
        assert set(counted) == asked

    asyncio.run(story())


@in_loop
async def test_who_reads_nothing_costs_no_memory() -> None:
    """Tasks come and are revoked, round after round, and the stream is not read."""
    hub = Hub()
    _, outbox = hub.connect(offer("berlin"))
    for sequence in range(1, 50):
        hub.open(exchange(sequence=sequence))
        hub.lease(RUN, [("berlin", 1)])
        hub.close(RUN, "the round is over")
    assert await told(outbox) == []
    hub.open(exchange(sequence=50))
    hub.lease(RUN, [("berlin", 1)])
    assert await told(outbox) == [(RUN, 1)]
    hub.close(RUN, "the round is over")
    assert await told(outbox) == [[RUN]]


@in_loop
async def test_a_task_that_came_before_is_revoked_though_it_has_not_come_again() -> None:
    hub = Hub()
    _, outbox = hub.connect(offer("berlin"))
    hub.open(exchange())
    hub.lease(RUN, [("berlin", 1)])
    assert await told(outbox) == [(RUN, 1)]
    _, outbox = hub.connect(offer("berlin"))
    hub.close(RUN, "the round is over")
    assert await told(outbox) == [[RUN]]

"""The classes that a server runs, with drawn faults: the result is the one of a simulation, to the bit."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from tests.simulation.network import federation
from umbel import wire
from umbel.engine.submission import Submission
from umbel.remote.line import add_page
from umbel.server.control import ControlDesk
from umbel.server.desk import _SPARE
from umbel.server.people import Person
from umbel.server.results import pages_of

SITES = {"berlin": {"n": 3}, "lyon": {"n": 5}, "turin": {"n": 8}}


def stateful(unlucky: float = 0.0) -> umbel.ClientApp:
    """Trains on what its site says, and counts in its state how often its answer was counted.

    Args:
        unlucky: how often one of the clients fails.
    """
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        if unlucky and ctx.client.name == "lyon" and ctx.rng.random() < unlucky:
            raise OSError("no luck")
        ctx.state["times"] = ctx.state.get("times", 0) + 1
        noise = ctx.rng.normal(size=3) / ctx.state["times"]
        return umbel.Update(
            model={"w": model["w"] + ctx.site["n"] + noise}, weight=ctx.site["n"], metrics={"times": ctx.state["times"]}
        )

    @client.evaluate
    def evaluate(model: umbel.Arrays, ctx: Any) -> umbel.Metrics:
        return umbel.Metrics({"mean": float(np.mean(model["w"])), "times": ctx.state["times"]}, weight=ctx.site["n"])

    return client


def strategy(**changes: Any) -> Any:
    return umbel.fed_adam(lr=0.1, rounds=umbel.rounds(min_nodes=3, retries=30), **changes)


def submission(seed: int, rounds: int) -> Submission:
    return Submission(
        seed=seed,
        rounds=rounds,
        initial=umbel.Arrays({"w": np.zeros(3)}),
        handlers=("train", "evaluate"),
        strategy=strategy(),
    )


def simulated(seed: int, rounds: int, unlucky: float = 0.0) -> umbel.Result:
    server = umbel.ServerApp(model={"w": np.zeros(3)}, strategy=strategy(), rounds=rounds)
    on = umbel.Simulation(clients=SITES, engine="inline")
    return umbel.run(server, stateful(unlucky), on=on, seed=seed)


def bits(result: umbel.Result) -> str:
    assert result.model is not None
    return result.model.digest()


@pytest.mark.parametrize("policy", [{"retries": 2}, {"on_miss": "stop"}], ids=str)
def test_a_run_that_failed_goes_on_when_its_clients_are_mended(tmp_path: Path, policy: dict[str, Any]) -> None:
    broken, client = [True], stateful()

    @client.use
    def mendable(model: umbel.Arrays, ctx: Any, call: Any) -> Any:
        if broken and ctx.round == 2 and ctx.client.name == "lyon":
            raise OSError("the disk is not mounted")
        return call(model, ctx)

    asked = submission(7, 3)
    assert asked.strategy is not None
    asked = replace(asked, strategy=asked.strategy.with_(rounds=umbel.rounds(min_nodes=3, **policy)))

    async def story() -> Any:
        async with federation(tmp_path, client, SITES) as (place, _):
            failed = await place.ended(await place.submit(asked))
            assert (failed.status, failed.round) == ("failed", 1)
            broken.clear()
            assert place.runs is not None
            await place.runs.resume(failed, 0, "alice")
            row = await place.ended(failed.id)
            assert (row.status, row.reason) == ("finished", "")
            assert place.store is not None
            return pages_of(place.store, row, models=True)[0]

    found = asyncio.run(story())
    assert found["state"]["fields"]["model"]["$arrays"] == bits(simulated(7, 3))
    assert not found["failures"]["$tuple"]


def test_a_long_result_comes_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients come by the thousand, and each may have a hundred metrics."""

    async def story() -> tuple[list[Any], list[Any]]:
        async with federation(tmp_path, stateful(), SITES) as (place, _):
            row = await place.ended(await place.submit(submission(7, 4)))
            assert place.store is not None
            whole = pages_of(place.store, row, models=True)
            monkeypatch.setattr("umbel.server.results._PAGE", 10)  # characters
            return whole, pages_of(place.store, row, models=True)

    (whole,), pages = asyncio.run(story())
    assert [len(page["clients"]) for page in pages] == [1, 1, 1, 0]
    assert [len(page["rows"]["$tuple"]) for page in pages] == [1, 1, 1, 1]
    found = pages[0]
    for more in pages[1:]:
        add_page(found, more)
    assert found == whole
    assert list(found["clients"]) == list(whole["clients"]) == list(SITES)


def test_a_round_opens_where_there_is_room_for_its_cohort(tmp_path: Path) -> None:
    """Nothing comes of those who are there and are not drawn."""
    asked = submission(7, 1)

    async def story() -> list[str]:
        async with federation(tmp_path, stateful(), SITES) as (place, _):
            assert place.store is not None
            assert asked.initial is not None
            two = 2 * asked.initial.nbytes
            place.store.blobs.free = lambda: _SPARE + two  # type: ignore[method-assign]
            reasons = []
            for size in (2, 3):
                drawn = replace(asked, strategy=strategy(cohort=umbel.sample.count(size)))
                reasons.append((await place.ended(await place.submit(drawn, key=str(size)))).reason)
            return reasons

    fits, full = asyncio.run(story())
    assert fits == ""
    assert full.startswith("round 1 does not open: ")
    assert "for 3 answers of 24 and all else" in full


@pytest.mark.parametrize("restarts", [False, True])
def test_a_node_that_is_renamed_meanwhile_keeps_its_state(tmp_path: Path, restarts: bool) -> None:
    async def story() -> list[Any]:
        async with federation(tmp_path, stateful(), SITES) as (place, nodes):
            run = await place.submit(submission(7, 8))

            async def until(round: int) -> None:
                assert place.runs is not None
                async for event in place.runs.news.watch(run, 0):
                    if event.kind == "round" and event.content["round"] == round:
                        return

            await until(2)
            assert place.runs is not None
            nodes["turin"].name = "torino"
            assert place.store is not None
            assert place.hub is not None
            assert place.desk is not None
            people = ControlDesk(place.store, place.hub, place.runs, place.uploads, nodes=place.desk)
            rename = wire.ChangeNodeRequest(node="turin", rename="torino")
            await people.change_node(Person("ada", "operator"), rename)
            if restarts:
                await until(place.runs.find(run).round + 2)
                await place.stop()
                place.start()
            row = await place.ended(run)
            assert (row.status, row.reason) == ("finished", "")
            found = dict(pages_of(place.store, row, models=True)[0])
            return [line["fields"]["stages"]["train"]["times"] for line in found["rows"]["$tuple"]]

    assert asyncio.run(story()) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_without_faults(tmp_path: Path) -> None:
    async def story() -> Any:
        async with federation(tmp_path, stateful(), SITES) as (place, nodes):
            run = await place.submit(submission(7, 4))
            row = await place.ended(run)
            assert (row.status, row.reason, row.round) == ("finished", "", 4)
            assert place.store is not None
            assert all(len(node.trained) == 8 for node in nodes.values())
            return pages_of(place.store, row, models=True)[0], place.store.blobs.fetch

    found, _ = asyncio.run(story())
    expected = simulated(7, 4)
    rows = found["rows"]["$tuple"]
    assert [row["fields"]["stages"]["evaluate"]["mean"] for row in rows] == list(expected.history["mean"])
    assert found["state"]["fields"]["model"]["$arrays"] == bits(expected)


@pytest.mark.parametrize("seed", range(12))
def test_with_messages_lost_and_nodes_away(tmp_path: Path, seed: int) -> None:
    async def story() -> Any:
        async with federation(tmp_path, stateful(), SITES, seed=seed, losses=0.2) as (place, _):
            row = await place.ended(await place.submit(submission(seed, 3)))
            assert row.status == "finished", row.reason
            assert place.store is not None
            return pages_of(place.store, row, models=True)[0]

    found = asyncio.run(story())
    assert found["state"]["fields"]["model"]["$arrays"] == bits(simulated(seed, 3))


@pytest.mark.parametrize("seed", range(12))
def test_a_killed_server_goes_on_to_the_same_bits(tmp_path: Path, seed: int) -> None:
    """It ends at a drawn moment, several times; what it had acknowledged is not asked again."""

    async def story() -> Any:
        async with federation(tmp_path, stateful(), SITES, seed=seed, losses=0.05) as (place, nodes):
            run = await place.submit(submission(seed, 4))
            draw = np.random.default_rng(seed)
            for _ in range(3):
                for _ in range(int(draw.integers(1, 60))):
                    await asyncio.sleep(0)
                before = {name: set(node.acknowledged) for name, node in nodes.items()}
                await place.stop()
                for node in nodes.values():
                    node.trained.clear()
                place.start()
                await asyncio.sleep(0.01)
                for name, node in nodes.items():
                    again = before[name] & set(node.trained)
                    assert not again, f"{name} was asked again: {again}"
            row = await place.ended(run)
            assert row.status == "finished", row.reason
            assert place.store is not None
            return pages_of(place.store, row, models=True)[0]

    found = asyncio.run(story())
    assert found["state"]["fields"]["model"]["$arrays"] == bits(simulated(seed, 4))


@pytest.mark.parametrize("seed", range(12))
def test_a_killed_server_asks_no_cohort_again_that_has_missed_its_quorum(tmp_path: Path, seed: int) -> None:
    unlucky = 0.6

    async def story() -> Any:
        async with federation(tmp_path, stateful(unlucky), SITES, seed=seed) as (place, nodes):
            run = await place.submit(submission(seed, 3))
            draw = np.random.default_rng(seed)
            for _ in range(4):
                for _ in range(int(draw.integers(1, 120))):
                    await asyncio.sleep(0)
                await place.stop()
                before = max([0, *(exchange for node in nodes.values() for _, exchange in node.trained)])
                for node in nodes.values():
                    node.trained.clear()
                place.start()
                await asyncio.sleep(0.01)
                again = {exchange for node in nodes.values() for _, exchange in node.trained if exchange < before}
                assert not again, f"asked again, though {before} was asked: {again}"
            row = await place.ended(run)
            assert row.status == "finished", row.reason
            assert place.store is not None
            return pages_of(place.store, row, models=True)[0]

    found, expected = asyncio.run(story()), simulated(seed, 3, unlucky)
    assert found["state"]["fields"]["model"]["$arrays"] == bits(expected)
    failures = [failure["fields"] for failure in found["failures"]["$tuple"]]
    assert [(f["client"], f["round"], f["code"]) for f in failures] == [
        (f.client, f.round, f.code) for f in expected.failures
    ]

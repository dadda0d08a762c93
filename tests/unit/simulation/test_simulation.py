from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest

import umbel
from umbel.client.work import Bench
from umbel.errors import UsageError
from umbel.simulation.auto import Auto
from umbel.simulation.limits import next_within
from umbel.store.memory import MemoryClientStates

MODEL = {"w": np.zeros(2)}


def test_clients_by_number_names_parts_and_settings() -> None:
    assert umbel.Simulation(clients=3).clients.population.names == ("0", "1", "2")
    assert umbel.Simulation(clients=np.int64(2)).clients.population.names == ("0", "1")
    assert umbel.Simulation(clients=["b", "a"]).clients.population.names == ("a", "b")
    parts = umbel.Simulation(clients=[[0, 2], range(3, 5), np.array([], int)]).clients
    assert [parts[n].part.tolist() for n in "012"] == [[0, 2], [3, 4], []]
    split = umbel.partition.iid(np.arange(10) % 2, clients=["x", "y"], seed=1)
    on = umbel.Simulation(clients=split)
    assert on.clients["x"].part.tolist() == split["x"].tolist()
    sites = umbel.Simulation(clients={"a": {"path": "p"}, 3: {}}).clients
    assert (dict(sites["a"].site), dict(sites["3"].site)) == ({"path": "p"}, {})


def test_a_handler_may_change_its_part_and_labels() -> None:
    clients = umbel.Simulation(clients=[np.arange(4)], labels={"0": {"a": "b"}}).clients
    clients["0"].part.sort()
    clients["0"].part[:] = 9
    clients["0"].labels["a"] = "c"  # type: ignore[index]
    assert clients["0"].part.tolist() == [0, 1, 2, 3]
    assert clients["0"].labels == {"a": "b"}


def test_a_mask_is_a_part() -> None:
    mask = np.array([True, False, True])
    assert umbel.Simulation(clients=[mask]).clients["0"].part.tolist() == mask.tolist()


def test_a_name_twice_is_found_among_very_many() -> None:
    names = [str(i) for i in range(50_000)]
    with pytest.raises(UsageError, match="two clients are called '49999'"):
        umbel.Simulation(clients=[*names, "49999"])


@pytest.mark.parametrize("part", ["ab", [0.5], [[1], [1, 2]], 3, None, {"x": 1}, np.array(["a"])])
def test_a_part_is_an_index_array(part: Any) -> None:
    with pytest.raises(UsageError, match=r"the part of client '1' is a .*not an array of indexes"):
        umbel.Simulation(clients=[[0], part])


def test_numbers_of_numpy_are_numbers() -> None:
    on = umbel.Simulation(2, workers=np.int64(3), threads=np.int32(1), per_device=np.uint8(2), limit=np.int64(5))  # type: ignore[arg-type]
    given = (on.workers, on.threads, on.per_device, on.limit)
    assert given == (3, 1, 2, 5.0)
    assert {type(number) for number in given} == {int, float}
    assert umbel.Simulation(2, limit=np.float32(0.5)).limit == 0.5  # type: ignore[arg-type]
    assert umbel.Simulation(2, limit=1e-9).limit == 1e-9


@pytest.mark.parametrize("limit", [math.inf, math.nan, 1e12, 10**400, 0, -1.0, True, "5", np.array([5.0, 6.0])])
def test_a_limit_is_a_time_that_a_timer_can_be_set_to(limit: Any) -> None:
    with pytest.raises(UsageError, match="give the seconds that a task may take"):
        umbel.Simulation(2, limit=limit)


def test_a_timer_can_be_set_to_the_longest_limit_of_a_whole_group() -> None:
    limit = umbel.Simulation(2, limit=1e8).limit
    assert limit is not None
    assert next_within(limit * 64, iter([3]), sys.__stderr__.fileno()) == 3  # type: ignore[union-attr]
    assert next_within(1e300, iter([3]), sys.__stderr__.fileno()) == 3  # type: ignore[union-attr]
    assert next_within(None, iter([3]), -1) == 3


def test_the_recipe_names_what_the_result_depends_on() -> None:
    def recipe(**arguments: Any) -> Any:
        return umbel.Simulation(**arguments).recipe()

    assert recipe(clients=3) == recipe(clients=["2", "0", "1"])
    assert recipe(clients=[[0, 1], [2]]) == recipe(clients=[np.array([0, 1]), range(2, 3)])
    assert recipe(clients=[[0, 1], [2]]) != recipe(clients=[[1, 0], [2]])
    assert recipe(clients={"a": {"path": "x"}}) != recipe(clients={"a": {"path": "y"}})
    assert recipe(clients=2) != recipe(clients=2, threads=2)
    assert recipe(clients=2) != recipe(clients=2, labels={"0": {"a": "b"}})
    assert repr(umbel.Simulation(clients=3)) == "Simulation(3 clients, engine='auto')"


def counting() -> tuple[umbel.ClientApp, list[str]]:
    calls: list[str] = []
    client = umbel.ClientApp()

    @client.setup
    def setup(ctx: Any) -> str:
        calls.append("setup")
        return "shared"

    @client.data
    def data(ctx: Any) -> float:
        calls.append(ctx.client.name)
        return float(ctx.rng.random())

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        return umbel.Update(model=model, metrics={"data": ctx.data})

    return client, calls


def run(on: umbel.Simulation, client: umbel.ClientApp, seed: int = 1) -> umbel.Result:
    return umbel.run(umbel.ServerApp(MODEL, umbel.fed_avg(), 2), client, on=on, seed=seed)


def test_in_a_with_statement_set_up_and_data_are_kept_from_run_to_run() -> None:
    client, calls = counting()
    with umbel.Simulation(clients=2) as on:
        kept = [run(on, client).history for _ in range(3)]
        assert calls == ["setup", "0", "1"]
        run(on, client, seed=2)
        assert calls.count("setup") == 2, "another seed, another set-up"
    alone = run(umbel.Simulation(clients=2), client).history
    assert all(history == alone for history in kept), "and nothing else changes"
    calls.clear()
    run(on, client)
    assert calls == ["setup", "0", "1"], "afterwards nothing is kept"


def test_of_a_sweep_over_many_seeds_the_last_few_are_kept() -> None:
    client, calls = counting()
    with umbel.Simulation(clients=1) as on:
        for seed in (*range(6), 5, 4, 3, 2):
            run(on, client, seed=seed)
        assert calls.count("setup") == 6
        run(on, client, seed=0)
        assert calls.count("setup") == 7
        runner = on.runner(client, 0, MemoryClientStates())
        assert isinstance(runner, Auto)
        assert isinstance(runner._inline._bench, Bench)


def test_two_apps_do_not_share() -> None:
    (one, first), (two, second) = counting(), counting()
    with umbel.Simulation(clients=1) as on:
        run(on, one)
        run(on, two)
    assert first == second == ["setup", "0"]

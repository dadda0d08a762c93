"""Who is trained with whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import umbel
from umbel.simulation.groups import groups


def sizes(count: int) -> list[int]:
    return [len(group) for group in groups([(str(i), 1) for i in range(count)], together=True)]


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, []), (1, [1]), (64, [64]), (65, [33, 32]), (100, [50, 50]), (128, [64, 64]), (170, [64, 53, 53])],
)
def test_groups_are_shards_and_the_last_two_are_equal(count: int, expected: list[int]) -> None:
    assert sizes(count) == expected


@given(count=st.integers(0, 1000))
def test_all_are_in_a_group_in_their_order(count: int) -> None:
    tasks = [(str(i), 1) for i in range(count)]
    found = groups(tasks, together=True)
    assert [task for group in found for task in group] == tasks
    assert all(1 <= len(group) <= 64 for group in found)
    assert len(found) == -(-count // 64)


def test_others_are_alone() -> None:
    assert groups([("a", 1), ("b", 2)], together=False) == [[("a", 1)], [("b", 2)]]


class Together:
    """Declared training that says how it was done."""

    def __call__(self, model: umbel.Arrays, ctx: umbel.Context) -> umbel.Update:
        del ctx
        return umbel.Update(model=model + 1.0)

    def many(self, models: Sequence[umbel.Arrays], contexts: Sequence[umbel.Context]) -> Sequence[umbel.Update]:
        return [umbel.Update(model=model + 2.0) for model, _ in zip(models, contexts, strict=True)]


@pytest.mark.parametrize("engine", ["inline", "processes"])
@pytest.mark.parametrize(("clients", "step"), [(["a", "b"], 2.0), ({"a": {}, "b": {}}, 1.0)], ids=["names", "sites"])
def test_sites_are_trained_alone_as_their_nodes_will_be(clients: Any, step: float, engine: Any) -> None:
    client = umbel.ClientApp()
    client.train(Together())
    server = umbel.ServerApp(model={"w": [0.0]}, strategy=umbel.fed_avg(), rounds=1)
    result = umbel.run(server, client, on=umbel.Simulation(clients, engine=engine, workers=1), seed=1)
    assert result.model is not None
    assert result.model["w"] == [step]

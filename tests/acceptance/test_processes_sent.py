"""What reaches worker processes: the app as it is when a run begins, and settings that only cloudpickle can carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import umbel


def adding(amount: Any) -> umbel.ClientApp:
    """Clients that add what this gives."""
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        return umbel.Update(model={"a": model["a"] + amount(ctx)})

    return client


def after_a_round(client: umbel.ClientApp, on: umbel.Simulation) -> float:
    server = umbel.ServerApp(model={"a": np.zeros(())}, strategy=umbel.fed_avg(), rounds=1)
    result = umbel.run(server, client, on=on, seed=1)
    assert result.model is not None
    return float(result.model["a"])


def test_what_the_app_refers_to_may_change_between_two_runs() -> None:
    """As in a sweep over a variable of the program."""
    rate = 0.0
    client = adding(lambda _: rate)
    came = []
    with umbel.Simulation(3, engine="processes", workers=2) as on:
        for rate in (0.5, 1.0, 0.5):  # noqa: B007  # the handler reads it
            came.append(after_a_round(client, on))
    assert came == [0.5, 1.0, 0.5]


@dataclass
class Amount:
    n: int


@pytest.mark.parametrize("engine", ["processes", "inline"])
def test_settings_may_hold_objects_of_classes_without_a_module(engine: Any) -> None:
    @dataclass
    class Local:
        n: int

    sites = {"here": {"v": Local(2), "f": lambda x: x + 1}, "there": {"v": Amount(4), "f": lambda x: x}}
    client = adding(lambda ctx: ctx.site["f"](ctx.site["v"].n))
    assert after_a_round(client, umbel.Simulation(sites, engine=engine)) == 3.5

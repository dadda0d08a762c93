"""Every strategy, run end to end, against the published algorithm and against Flower.

The clients return what inputs.json recorded for them, whatever they are sent; what they are sent in round r + 1 is the
model after round r.
"""

from __future__ import annotations

from typing import Any

import pytest

import umbel
from tests.golden import vector_file
from tests.golden.comparison import as_arrays, assert_trajectory
from umbel.client.context import Context
from umbel.strategies.base import Strategy

INPUTS = vector_file.read("inputs.json")
CASES = [
    (oracle, case) for oracle in ("paper", "flwr") for case in vector_file.read(f"{oracle}_strategies.json")["cases"]
]


def built(name: str, hyper: dict[str, Any]) -> Strategy:
    """The strategy of that name over all clients."""
    arguments = dict(hyper)
    if arguments.pop("uniform", False):
        arguments["aggregator"] = umbel.aggregate.mean(uniform=True)
    strategy: Strategy = getattr(umbel, name)(cohort=umbel.sample.everyone(), **arguments)
    return strategy


def played(strategy: Strategy, inputs: dict[str, Any], dtype: str) -> list[Any]:
    """The model after each round of a run."""
    client, sent = umbel.ClientApp(), {}
    first, *_ = names = sorted(inputs["rounds"][0])

    @client.train
    def train(model: umbel.Arrays, ctx: Context) -> umbel.Update:
        if ctx.client.name == first:
            sent[ctx.round] = model
        assert ctx.correction is None or ctx.correction.pull > 0  # who does not look at FedProx's is refused
        answer = inputs["rounds"][ctx.round - 1][ctx.client.name]
        metrics = {"loss": answer["loss"]} if "loss" in answer else {}
        return umbel.Update(model=as_arrays(answer["model"], dtype), weight=answer["weight"], metrics=metrics)

    server = umbel.ServerApp(
        model=lambda: umbel.Arrays(as_arrays(inputs["model"], dtype)), strategy=strategy, rounds=len(inputs["rounds"])
    )
    result = umbel.run(server, client, on=umbel.Simulation(clients=names, engine="inline"), seed=0)
    return [*(sent[number] for number in sorted(sent)[1:]), result.model]


@pytest.mark.parametrize(("oracle", "case"), CASES, ids=lambda c: c if isinstance(c, str) else _id(c))
def test_strategy_is_the_published_one(oracle: str, case: dict[str, Any]) -> None:
    inputs, dtype = INPUTS[case["inputs"]], case["dtype"]
    models = played(built(case["strategy"], case["hyper"]), inputs, dtype)
    assert_trajectory(models, case["models"], start=as_arrays(inputs["model"], dtype), dtype=dtype)


@pytest.mark.parametrize("name", ["fed_avg", "fed_avgm", "fed_adam", "fed_yogi", "fed_adagrad", "q_fed_avg"])
def test_defaults_are_recorded_ones(name: str) -> None:
    recorded = {"q_fed_avg": {"q": 0.2, "lr": 0.1}}
    mine = [case for oracle, case in CASES if oracle == "paper" and case["strategy"] == name]
    case = next(case for case in mine if case["hyper"] == recorded.get(name, mine[0]["hyper"]))
    inputs = INPUTS[case["inputs"]]
    models = played(built(name, {}), inputs, "float64")
    assert_trajectory(models, case["models"], start=inputs["model"], dtype="float64")


def _id(case: dict[str, Any]) -> str:
    return f"{case['strategy']}-{case['inputs']}-{case['dtype']}-{case['hyper']}"

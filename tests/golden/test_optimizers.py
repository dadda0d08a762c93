"""Every server optimizer against the published algorithm in 60-digit decimals, and against torch.optim."""

from __future__ import annotations

from typing import Any

import pytest

import umbel
from tests.golden import vector_file
from tests.golden.comparison import as_arrays, assert_trajectory

INPUTS = vector_file.read("inputs.json")["steps"]
PAPER = vector_file.read("paper_optimizers.json")["cases"]
TORCH = [case for case in vector_file.read("torch_optimizers.json")["cases"] if case["same"]]


def played(optimizer: Any, dtype: str) -> list[Any]:
    """The model after each of the recorded deltas."""
    model = umbel.Arrays(as_arrays(INPUTS["model"], dtype))
    state, models = optimizer.init(model), []
    for delta in INPUTS["deltas"]:
        model, state = optimizer.step(model, umbel.Arrays(as_arrays(delta, dtype)), state)
        models.append(model)
    return models


@pytest.mark.parametrize("case", PAPER, ids=lambda c: f"{c['optimizer']}-{c['dtype']}-{c['hyper']}")
def test_optimizer_is_the_published_one(case: dict[str, Any]) -> None:
    optimizer = getattr(umbel.optimize, case["optimizer"])(**case["hyper"])
    start = as_arrays(INPUTS["model"], case["dtype"])
    assert_trajectory(played(optimizer, case["dtype"]), case["models"], start=start, dtype=case["dtype"])


@pytest.mark.parametrize("case", TORCH, ids=lambda c: f"{c['torch']}-{c['arguments']}")
def test_optimizer_is_that_of_torch(case: dict[str, Any]) -> None:
    hyper = dict(case["same"])
    optimizer = getattr(umbel.optimize, hyper.pop("optimizer"))(**hyper)
    assert_trajectory(played(optimizer, "float64"), case["models"], start=INPUTS["model"], dtype="float64")


def test_defaults_are_the_recorded_ones() -> None:
    recorded = {"sgd": 0, "momentum": 3, "adam": 7, "yogi": 9, "adagrad": 11}
    for name, index in recorded.items():
        assert PAPER[index]["optimizer"] == name
        optimizer = getattr(umbel.optimize, name)()
        assert_trajectory(played(optimizer, "float64"), PAPER[index]["models"], start=INPUTS["model"], dtype="float64")

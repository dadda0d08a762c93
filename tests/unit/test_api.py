from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from umbel.errors import EmptyPopulation, HandlerMissing, UmbelError, UsageError

MODEL = {"w": np.arange(3.0)}


def make_client() -> umbel.ClientApp:
    client = umbel.ClientApp()

    @client.evaluate
    def evaluate(model: Any, ctx: Any) -> umbel.Metrics:
        if ctx.client.name == ctx.config.get("ill"):
            raise OSError("ill")
        value = float(model["w"].sum()) + int(ctx.client.name)
        return umbel.Metrics({"a": value, "draw": ctx.rng.random()}, weight=1 + int(ctx.client.name))

    return client


def evaluate(model: Any = MODEL, **arguments: Any) -> umbel.Evaluation:
    return umbel.evaluate(model, make_client(), on=umbel.Simulation(clients=3), **arguments)


def test_clients_evaluate_a_model() -> None:
    found = evaluate()
    assert list(found.clients) == ["0", "1", "2"]
    assert [metrics["a"] for metrics in found.clients.values()] == [3.0, 4.0, 5.0]
    assert found.metrics["a"] == pytest.approx((1 * 3 + 2 * 4 + 3 * 5) / 6)
    assert found.failures == ()
    assert found.metrics == evaluate().metrics
    assert found.metrics != evaluate(seed=1).metrics


def test_a_model_may_lie_in_a_file(tmp_path: Path) -> None:
    umbel.Arrays(MODEL).save(tmp_path / "m.safetensors")
    assert evaluate(tmp_path / "m.safetensors").metrics == evaluate().metrics
    assert evaluate(umbel.Arrays(MODEL)).metrics == evaluate().metrics


def test_who_fails_is_named_and_the_others_count() -> None:
    found = evaluate(config={"ill": "1"})
    assert list(found.clients) == ["0", "2"]
    assert [(f.client, f.message) for f in found.failures] == [("1", "its evaluate handler raised OSError: ill")]


def test_a_part_of_the_clients_and_other_metrics() -> None:
    found = evaluate(cohort=umbel.sample.count(2), metrics={"a": umbel.metrics.sum()})
    assert len(found.clients) == 2
    assert found.metrics["a"] == sum(metrics["a"] for metrics in found.clients.values())


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        ({"on": None}, UsageError, "nobody says where to evaluate"),
        ({"on": 3}, UsageError, "on is a int"),
        ({"on": umbel.Simulation(clients=0)}, EmptyPopulation, "no client to evaluate on"),
        ({"model": 3}, UsageError, "a model is"),
        ({"model": "/nowhere"}, UmbelError, "'/nowhere' cannot be read"),
        ({"client": umbel.ServerApp()}, UsageError, "the second argument is a ServerApp"),
        ({"client": umbel.ClientApp()}, HandlerMissing, "no handler for 'evaluate'"),
        ({"cohort": 0.5}, UsageError, "cohort is a float"),
        ({"cohort": umbel.sample.everyone().where(site="x")}, EmptyPopulation, "none of 2 clients has site='x'"),
        ({"metrics": ["a"]}, UsageError, "metrics is a list"),
        ({"metrics": {"a": "mean"}}, UsageError, "'mean' does not say"),
        ({"config": [1]}, UsageError, "config is a list"),
        ({"seed": -1}, UsageError, "seed is -1"),
    ],
)
def test_what_makes_no_sense(arguments: dict[str, Any], kind: type[Exception], says: str) -> None:
    given: dict[str, Any] = {"model": MODEL, "client": make_client(), "on": umbel.Simulation(clients=2)} | arguments
    with pytest.raises(kind, match=says):
        umbel.evaluate(given.pop("model"), given.pop("client"), **given)


def test_entries_that_stayed_at_the_clients_are_pointed_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "umbel"):
        evaluate(umbel.Arrays(MODEL | {"head": np.ones(1)}, roles={"head": "local"}))
    assert "head stayed at the clients of the run" in caplog.text


def training() -> umbel.ClientApp:
    client = umbel.ClientApp()
    client.train(lambda model, ctx: umbel.Update(model={"w": model["w"] + ctx.rng.random()}))
    return client


def run(**arguments: Any) -> umbel.Result:
    server = umbel.ServerApp(MODEL, umbel.fed_avg(), 2)
    return umbel.run(server, training(), on=umbel.Simulation(clients=2), **arguments)


def test_a_seed_that_is_not_given_is_drawn_and_told(tmp_path: Path) -> None:
    drawn = run(dir=tmp_path)
    assert run(seed=drawn.seed).model == drawn.model
    assert run(dir=tmp_path).seed == drawn.seed, "and recorded"
    assert run().seed != drawn.seed


def test_numpys_whole_numbers_are_whole_numbers() -> None:
    assert run(seed=np.int64(3), rounds=np.int32(1)).history == run(seed=3, rounds=1).history


def test_a_run_has_a_name_and_a_status(tmp_path: Path) -> None:
    result = run(seed=1, dir=tmp_path / "heart")
    assert (result.name, result.status, result.dir) == ("heart", "finished", tmp_path / "heart")
    assert run(seed=1).name == "run"
    assert run(seed=1, name="trial").name == "trial"
    assert result.timing["total"] >= result.timing["round"] >= 0


def test_it_starts_from_a_given_model(tmp_path: Path) -> None:
    start = umbel.Arrays({"w": np.full(3, 100.0)})
    start.save(tmp_path / "m.safetensors")
    found = [
        run(seed=1, initial=given).model for given in (start, {"w": np.full(3, 100.0)}, tmp_path / "m.safetensors")
    ]
    assert found[0] is not None
    assert (found[0]["w"] > 100).all()
    assert found[0] == found[1] == found[2]


def test_everything_public_is_there_and_nothing_else_is_loaded() -> None:
    for name in umbel.__all__:
        if name not in ("jax", "torch", "sklearn"):
            assert getattr(umbel, name) is not None
    with pytest.raises(AttributeError, match="bogus"):
        _ = umbel.bogus
    assert set(umbel.__all__) <= set(dir(umbel))

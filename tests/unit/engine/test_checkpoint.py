from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import umbel
from umbel.engine.checkpoint import Checkpoint, EarlyStopping, mode_of
from umbel.engine.history import History, Row
from umbel.errors import UsageError

VALUES = st.lists(st.one_of(st.none(), st.floats(-5, 5, width=16)), max_size=12)


def history(metric: str, values: list[Any]) -> History:
    return History([Row(round=i, stages={"train": {} if v is None else {metric: v}}) for i, v in enumerate(values, 1)])


@given(VALUES, st.sampled_from(["min", "max"]))
def test_the_best_round_is_the_first_of_the_best(values: list[float | None], mode: Any) -> None:
    best = [
        n for n in range(1, len(values) + 1) if Checkpoint(best_on="x", mode=mode).is_best(history("x", values[:n]))
    ]
    there = [v for v in values if v is not None]
    if not there:
        assert best == []
        return
    pick = min if mode == "min" else max
    assert best[-1] == values.index(pick(there)) + 1
    kept = [values[n - 1] for n in best]
    assert None not in kept
    assert kept == sorted(kept, key=lambda v: v or 0.0, reverse=mode == "min")


@given(VALUES, st.integers(1, 4), st.floats(0, 2, width=16))
def test_a_run_ends_after_so_many_rounds_without_improvement(
    values: list[float | None], patience: int, min_delta: float
) -> None:
    rule = EarlyStopping("x", patience=patience, min_delta=min_delta, mode="max")
    best, since, expected = -np.inf, 0, []
    for v in values:
        if v is not None:
            best, since = (v, 0) if v > best + min_delta else (best, since + 1)
        expected.append(since >= patience)
    found = [bool(rule.on_round(SimpleNamespace(history=history("x", values[:n])))) for n in range(1, len(values) + 1)]
    assert found == expected


@pytest.mark.parametrize(
    ("metric", "mode"),
    [("loss", "min"), ("test_Loss", "min"), ("mean_error", "min"), ("accuracy", "max"), ("loss_ratio", "max")],
)
def test_what_is_better_is_told_by_the_name(metric: str, mode: str) -> None:
    assert mode_of(metric, None) == mode
    assert mode_of(metric, "max") == "max"


def test_what_is_no_number_has_no_best() -> None:
    for value in ("text", None, np.ones(2), [1.0]):
        table = history("x", [value, value])
        assert not Checkpoint(best_on="x").is_best(table)
        assert EarlyStopping("x", patience=1).on_round(SimpleNamespace(history=table)) == ""
    assert Checkpoint(best_on="x").is_best(history("x", ["text", np.float32(3)]))
    assert not Checkpoint(best_on="typo").is_best(history("x", [1.0]))
    assert not Checkpoint().is_best(history("x", [1.0]))
    assert not Checkpoint(best_on="x").is_best(History())


def test_when_it_is_written_down() -> None:
    assert [r for r in range(1, 11) if Checkpoint(every=3).due(r)] == [3, 6, 9]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Checkpoint(every=0), "every is 0"),
        (lambda: Checkpoint(every=2.5), "every is 2.5"),  # type: ignore[arg-type]
        (lambda: Checkpoint(best_on="x", mode="low"), "mode is 'low'"),  # type: ignore[arg-type]
        (lambda: Checkpoint(best_on=3), "the metric is 3"),  # type: ignore[arg-type]
        (lambda: EarlyStopping(["x"]), r"the metric is \['x'\]"),  # type: ignore[arg-type]
        (lambda: EarlyStopping("x", patience=0), "patience is 0"),
        (lambda: EarlyStopping("x", patience=True), "patience is True"),
        (lambda: EarlyStopping("x", min_delta=-1), "min_delta is -1"),
        (lambda: EarlyStopping("x", min_delta=float("nan")), "min_delta is nan"),
        (lambda: EarlyStopping("x", mode="best"), "mode is 'best'"),  # type: ignore[arg-type]
    ],
)
def test_what_makes_no_sense(make: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()


def losing(values: list[float]) -> umbel.ClientApp:
    client = umbel.ClientApp()

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        return umbel.Update(model={"w": model["w"] + 1}, metrics={"loss": values[ctx.round - 1]})

    return client


def test_in_a_run_the_best_model_is_that_of_the_best_round(tmp_path: Any) -> None:
    server = umbel.ServerApp({"w": np.zeros(1)}, umbel.fed_avg(), 5)
    on, client = umbel.Simulation(clients=2), losing([3.0, 1.0, 2.0, 1.0, 5.0])
    for every in (1, 2, 10):
        keep = umbel.Checkpoint(every=every, best_on="loss")
        for folder in (None, tmp_path / str(every)):
            result = umbel.run(server, client, on=on, seed=1, callbacks=[keep], dir=folder)
            assert result.best is not None
            assert result.model is not None
            assert (result.best["w"][0], result.model["w"][0]) == (2.0, 5.0)
    assert umbel.Arrays.load(tmp_path / "2" / "best.safetensors")["w"][0] == 2.0


def test_a_run_that_stopped_early_stays_so(tmp_path: Any) -> None:
    server = umbel.ServerApp({"w": np.zeros(1)}, umbel.fed_avg(), 9)
    on, client = umbel.Simulation(clients=2), losing([3.0, 1.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0])
    rules = [umbel.EarlyStopping("loss", patience=3)]
    first = umbel.run(server, client, on=on, seed=1, callbacks=rules, dir=tmp_path / "run")
    assert (first.status, len(first.history)) == ("stopped early: loss has not improved for 3 rounds", 5)
    again = umbel.run(server, client, on=on, seed=1, callbacks=rules, dir=tmp_path / "run")
    assert (again.status, again.history, again.model) == (first.status, first.history, first.model)


def test_a_name_that_no_round_has_is_pointed_out(caplog: pytest.LogCaptureFixture) -> None:
    server = umbel.ServerApp({"w": np.zeros(1)}, umbel.fed_avg(), 2)
    rules = [umbel.EarlyStopping("lss"), umbel.Checkpoint(best_on="acuracy")]
    umbel.run(server, losing([1.0, 2.0]), on=umbel.Simulation(clients=2), seed=1, callbacks=rules)
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "no round has a metric 'lss'; there are round, cohort, folded, failed, loss" in said
    assert "no round has a metric 'acuracy'" in said


def test_a_metric_that_is_no_number_is_pointed_out(caplog: pytest.LogCaptureFixture) -> None:
    client = losing([1.0, 2.0])
    client.evaluate(lambda model, ctx: umbel.Metrics({"per class": np.ones(3)}))  # noqa: ARG005
    server = umbel.ServerApp({"w": np.zeros(1)}, umbel.fed_avg(), 2)
    rules = [umbel.EarlyStopping("per class"), umbel.Checkpoint(best_on="loss")]
    umbel.run(server, client, on=umbel.Simulation(clients=2), seed=1, callbacks=rules)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["metric-missing: metric 'per class' is not a number in any round, and none is the best"]

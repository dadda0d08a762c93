"""One run: callbacks, central evaluation, directories, and the order in which things happen."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from umbel.errors import RecipeChanged

MODEL = {"w": np.zeros(2, np.float32)}


def make_client() -> umbel.ClientApp:
    client = umbel.ClientApp()

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        return umbel.Update(model={"w": model["w"] + 1}, metrics={"loss": 1.0 / ctx.round})

    return client


def run(server: umbel.ServerApp | None = None, **arguments: Any) -> umbel.Result:
    server = server or umbel.ServerApp(MODEL, umbel.fed_avg(), 3)
    return umbel.run(server, make_client(), on=umbel.Simulation(clients=2), seed=1, **arguments)


# --- callbacks -----------------------------------------------------------------------------------------------------


def test_callbacks_see_the_result_so_far_after_each_round() -> None:
    seen: list[tuple[str, int, float]] = []

    class Tracker:
        def on_round(self, result: umbel.Result) -> None:
            assert result.model is not None
            seen.append((result.status, len(result.history), float(result.model["w"][0])))

    run(callbacks=[Tracker()])
    assert seen == [("running", 1, 1.0), ("running", 2, 2.0), ("running", 3, 3.0)]


def test_a_result_that_a_callback_keeps_stays_what_it_was() -> None:
    kept: list[umbel.Result] = []
    run(callbacks=[kept.append])
    assert [(len(r.history), r.history.columns, r.history[-1]["round"]) for r in kept] == [
        (n, kept[0].history.columns, n) for n in (1, 2, 3)
    ]


def test_the_first_reason_ends_the_run_and_all_are_asked() -> None:
    asked: list[str] = []

    def say(name: str, reason: Any) -> Any:
        def on_round(result: umbel.Result) -> Any:
            asked.append(name)
            return reason

        return on_round

    result = run(callbacks=[say("a", None), say("b", "enough"), say("c", "more than enough"), say("d", True)])
    assert (result.status, asked) == ("stopped early: enough", ["a", "b", "c", "d"])


def test_a_callback_that_fails_is_in_the_result_and_in_the_directory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def tracker(result: umbel.Result) -> None:
        if len(result.history) < 3:
            raise ConnectionError("no network")

    first = run(callbacks=[tracker], dir=tmp_path)
    assert [(f.client, f.round, f.code, f.message) for f in first.failures] == [
        ("tracker", r, "callback-failed", "callback raised ConnectionError: no network") for r in (1, 2)
    ]
    assert caplog.text.count("callback-failed: tracker in round") == 2
    assert "in tracker" in first.failures[0].traceback
    assert first.clients.keys() == {"0", "1"}, "and is no client"


def test_sys_exit_in_a_callback_is_meant(tmp_path: Path) -> None:
    def leave(result: umbel.Result) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        run(callbacks=[leave], dir=tmp_path)
    assert len(run(dir=tmp_path).history) == 3


# --- central evaluation --------------------------------------------------------------------------------------------


def test_a_central_evaluation_sees_the_new_model_of_its_rounds() -> None:
    server = umbel.ServerApp(MODEL, umbel.fed_avg(), 4)

    @server.evaluate(every=2)
    def test(model: Any, ctx: Any) -> umbel.Metrics:
        return umbel.Metrics({"w": model["w"][0], "round": ctx.round})

    @server.evaluate
    def other(model: Any, ctx: Any) -> umbel.Metrics:
        return umbel.Metrics({"draw": ctx.rng.random()})

    history = run(server).history
    assert history["w"].tolist() == pytest.approx([np.nan, 2, np.nan, 4], nan_ok=True)
    assert history["central.round"].tolist() == pytest.approx([np.nan, 2, np.nan, 4], nan_ok=True)
    assert len(set(history["draw"])) == 4


def test_two_central_evaluations_with_one_name_are_a_failure_not_a_silent_loss() -> None:
    server = umbel.ServerApp(MODEL, umbel.fed_avg(), 1)
    for value in (1.0, 2.0):
        server.evaluate(lambda model, ctx, value=value: umbel.Metrics({"accuracy": value}))  # noqa: ARG005
    result = run(server)
    assert result.history["accuracy"].tolist() == [1.0]
    assert "two central evaluations have a metric 'accuracy'" in result.failures[0].message


@pytest.mark.parametrize("returned", [None, {"accuracy": 1.0}, 0.9])
def test_a_central_evaluation_returns_metrics(returned: Any) -> None:
    server = umbel.ServerApp(MODEL, umbel.fed_avg(), 1)
    server.evaluate(lambda model, ctx: returned)  # noqa: ARG005
    (failure,) = run(server).failures
    assert (failure.code, failure.client) == ("central-failed", "server")
    assert f"it returned a {type(returned).__name__}" in failure.message


def test_a_broken_evaluation_leaves_the_other_ones_values() -> None:
    server = umbel.ServerApp(MODEL, umbel.fed_avg(), 2)
    server.evaluate(lambda model, ctx: umbel.Metrics({"fine": 1.0}))  # noqa: ARG005
    server.evaluate(lambda model, ctx: 1 / 0)  # noqa: ARG005
    result = run(server)
    assert result.history["fine"].tolist() == [1.0, 1.0]
    assert len(result.failures) == 2


# --- directories ---------------------------------------------------------------------------------------------------


def test_a_directory_in_which_nothing_was_done_takes_any_program(tmp_path: Path) -> None:
    """The first round failed, and mending it changed the recipe: there is nothing to protect."""
    wrong = umbel.ServerApp(MODEL, umbel.fed_prox(mu=0.1, rounds=umbel.rounds(on_miss="stop")), 3)
    with pytest.raises(umbel.errors.QuorumMissed):
        run(wrong, dir=tmp_path)
    mended = run(dir=tmp_path)
    assert (mended.model, mended.seed) == (run().model, 1)
    with pytest.raises(RecipeChanged, match="strategy"):
        run(wrong, dir=tmp_path)


def test_a_finished_run_is_given_back_without_work(tmp_path: Path) -> None:
    first = run(dir=tmp_path)
    seen: list[int] = []
    again = run(dir=tmp_path, callbacks=[lambda result: seen.append(len(result.history))])
    assert (again.status, again.model, again.history) == (first.status, first.model, first.history)
    assert again.clients == first.clients
    assert seen == []


@pytest.mark.parametrize("reason", [None, "enough"])
def test_what_failed_after_the_last_commit_is_there_when_the_run_is_opened_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, reason: str | None
) -> None:
    caplog.set_level(logging.CRITICAL, "umbel")

    def tracker(result: umbel.Result) -> None:
        raise ConnectionError("no network")

    def stop(result: umbel.Result) -> str | None:
        return reason if len(result.history) == 2 else None

    for rounds in (2, 3):
        live = run(callbacks=[tracker, stop], dir=tmp_path, rounds=rounds)
        again = run(callbacks=[tracker, stop], dir=tmp_path, rounds=rounds)
        assert [f.round for f in live.failures] == ([1, 2] if rounds == 2 or reason else [1, 2, 3])
        assert again.failures == live.failures
        assert again.clients == live.clients
        assert again.status == live.status


def test_what_main_asked_after_the_last_commit_is_there_when_the_run_is_opened_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "umbel")
    client = make_client()

    @client.evaluate
    def evaluate(model: Any, ctx: Any) -> umbel.Metrics:
        if ctx.client.name == "0":
            raise OSError("ill")
        return umbel.Metrics({"accuracy": 0.5})

    server = umbel.ServerApp(MODEL)

    @server.main
    def main(fed: Any) -> None:
        for _ in fed.rounds(2):
            fed.train(fed.initial, cohort=umbel.sample.everyone())
            fed.commit({"model": fed.initial})
        fed.evaluate(fed.initial, cohort=umbel.sample.everyone())

    for rounds in (2, 3):
        live, again = (
            umbel.run(server, client, on=umbel.Simulation(clients=2), seed=1, dir=tmp_path, rounds=rounds)
            for _ in range(2)
        )
        assert len(live.failures) == 1
        assert again.failures == live.failures
        assert again.clients == live.clients
        assert live.clients["1"].metrics == {"accuracy": 0.5}


def test_of_zero_rounds_a_finished_run_holds_the_initial_model(tmp_path: Path) -> None:
    for _ in range(2):
        result = run(dir=tmp_path, rounds=0)
        assert (result.status, result.model, len(result.history)) == ("finished", umbel.Arrays(MODEL), 0)
    assert len(run(dir=tmp_path, rounds=2).history) == 2


def test_failures_of_clients_are_logged_the_first_ones_in_full(caplog: pytest.LogCaptureFixture) -> None:
    client = umbel.ClientApp()

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        if ctx.client.name == "0":
            raise OSError("ill")
        return umbel.Update(model=model)

    server = umbel.ServerApp(MODEL, umbel.fed_avg(rounds=umbel.rounds(quorum=0.5)), 15)
    with caplog.at_level(logging.WARNING, "umbel"):
        result = umbel.run(server, client, on=umbel.Simulation(clients=2), seed=1)
    assert len(result.failures) == 15
    assert caplog.text.count("its train handler raised OSError: ill") == 10
    assert caplog.text.count("there are more; result.failures has them all") == 1
    assert (result.clients["0"].failed, result.clients["1"].counted) == (15, 15)

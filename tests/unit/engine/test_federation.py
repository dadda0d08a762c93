"""``fed``: cohorts, policies, client states' fates, and rounds that survive a crash."""

# ruff: noqa: ARG005  # handlers take what they are given
from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from umbel.errors import QuorumMissed, Refused, UsageError

MODEL = {"w": np.zeros(2, np.float32)}
ALL = umbel.sample.everyone()


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "umbel")


def make_client(fails: Callable[[Any], bool] = lambda ctx: False) -> umbel.ClientApp:
    """Clients that count their trainings and their questions."""
    client = umbel.ClientApp()

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        if fails(ctx):
            raise OSError("told to")
        return umbel.Update(model={"w": model["w"] + 1}, metrics={"n": ctx.state["n"]})

    @client.evaluate
    def evaluate(model: Any, ctx: Any) -> umbel.Metrics:
        return umbel.Metrics({"seen": ctx.state.get("n", 0)})

    @client.query("count")
    def count(model: Any, ctx: Any) -> umbel.Update:
        ctx.state["asked"] = ctx.state.get("asked", 0) + 1
        return umbel.Update(value={"n": [ctx.state.get("n", 0)], "asked": [ctx.state["asked"]]})

    return client


def run(
    main: Callable[[Any], None], client: umbel.ClientApp | None = None, *, clients: Any = 3, **arguments: Any
) -> umbel.Result:
    server = umbel.ServerApp(model=MODEL)
    server.main(main)
    on = umbel.Simulation(clients=clients)
    return umbel.run(server, client or make_client(), on=on, **{"seed": 2, "rounds": 3} | arguments)


# --- rounds --------------------------------------------------------------------------------------------------------


def test_rounds_are_as_many_as_were_asked_for() -> None:
    def main(fed: Any) -> None:
        assert (fed.seed, fed.handlers) == (2, {"train", "evaluate", "count"})
        for r in fed.rounds(7):
            assert fed.round == r
            fed.commit({"r": r})

    assert run(main, rounds=None).history["round"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert run(main, rounds=2).state == {"r": 2}, "what run says has precedence"
    assert run(main, rounds=0).state is None


def test_committed_metrics_stay_what_they_were_though_main_goes_on_with_the_array() -> None:
    def main(fed: Any) -> None:
        sums = np.zeros(2)
        for r in fed.rounds(3):
            sums += r
            fed.commit({"model": fed.initial}, metrics={"sums": sums})

    assert run(main).history["sums"].tolist() == [[1, 1], [3, 3], [6, 6]]


@pytest.mark.parametrize("commits", [0, 2])
def test_each_round_is_committed_once(commits: int) -> None:
    def main(fed: Any) -> None:
        for r in fed.rounds():
            for _ in range(commits if r == 2 else 1):
                fed.commit({"r": r})

    says = "round 2 ended without fed.commit" if commits == 0 else "round 2 is committed twice"
    with pytest.raises(UsageError, match=says):
        run(main)


def test_a_loop_may_be_left_and_something_done_after_it() -> None:
    def main(fed: Any) -> None:
        for r in fed.rounds():
            fed.commit({"r": r})
            if r == 2:
                break
        fed.commit({"r": "after"})

    result = run(main, rounds=9)
    assert (result.history["round"].tolist(), result.state) == ([1, 2, 3], {"r": "after"})


def test_a_callback_ends_the_loop() -> None:
    def main(fed: Any) -> None:
        for r in fed.rounds():
            fed.commit({"r": r})

    result = run(main, rounds=9, callbacks=[lambda result: "enough" if len(result.history) == 2 else ""])
    assert (result.status, len(result.history)) == ("stopped early: enough", 2)


def test_the_servers_own_draws_are_named_and_the_same_every_time() -> None:
    drawn: list[list[float]] = []

    def main(fed: Any) -> None:
        found = []
        for _ in fed.rounds():
            found += [fed.rng("a").random(), fed.rng("b", 1).random()]
            fed.train(fed.initial, cohort=ALL)
            found += [np.random.rand(), fed.rng("a").random()]
            fed.commit({})
        drawn.append(found)

    run(main)
    run(main)
    assert drawn[0] == drawn[1]
    first, second = drawn[0][:4], drawn[0][4:8]
    assert first[0] == first[3]
    assert len({*first, *second}) == 6


# --- what came out of an exchange ----------------------------------------------------------------------------------


def test_an_answer() -> None:
    def main(fed: Any) -> None:
        for _ in fed.rounds(1):
            got = fed.train(fed.initial, cohort=ALL, metrics={"n": umbel.metrics.sum()})
            assert got.mean["w"].tolist() == [1.0, 1.0]
            assert got.metrics == {"n": 3.0}
            assert (got.clients, got.cohort, got.failures, got.met) == (("0", "1", "2"), 3, (), True)
            with pytest.raises(UsageError, match="aggregated to a mean, not a sum"):
                _ = got.sum
            seen = fed.evaluate(fed.initial, cohort=ALL)
            assert (seen.metrics, seen.rows) == ({"seen": 1.0}, ({"seen": 1.0},) * 3)
            joined = fed.query("count", cohort=ALL, aggregator=umbel.aggregate.concat())
            assert joined.concat["n"].tolist() == [1, 1, 1]
            nobody = fed.query("count", cohort=umbel.sample.poisson(1e-9))
            assert (nobody.clients, nobody.metrics, nobody.value) == ((), {}, None)
            with pytest.raises(UsageError, match="no client was counted"):
                _ = nobody.mean
            fed.commit({})

    assert run(main, rounds=None).status == "finished"


def test_a_row_counts_trainings_and_questions_but_failures_of_all() -> None:
    client = make_client(lambda ctx: ctx.client.name == "0")

    def main(fed: Any) -> None:
        for _ in fed.rounds(1):
            fed.train(fed.initial, cohort=ALL, policy=umbel.rounds(quorum=0.5))
            fed.evaluate(fed.initial, cohort=ALL)
            fed.query("count", cohort=umbel.sample.count(2))
            fed.commit({}, metrics={"own": 1.0}, train={"own": 2.0})

    result = run(main, client, rounds=None)
    row = result.history[-1]
    assert row == {"round": 1, "cohort": 5, "folded": 4, "failed": 1, "own": 1.0, "train.own": 2.0}
    assert {name: record.counted for name, record in result.clients.items()}.get("0", 0) <= 1


# --- the fate of a client's state ----------------------------------------------------------------------------------


def count(fed: Any) -> dict[str, int]:
    """What each client's state says of its trainings, asked without leaving a trace in them."""
    got = fed.evaluate(fed.initial, cohort=ALL)
    return {name: int(row["seen"]) for name, row in zip(got.clients, got.rows, strict=True)}


def test_of_who_is_folded_it_is_kept_and_of_who_fails_dropped() -> None:
    def main(fed: Any) -> None:
        for r in fed.rounds():
            fed.train(fed.initial, cohort=ALL, policy=umbel.rounds(quorum=0.5))
            assert count(fed) == {"0": r, "1": r - (r >= 2), "2": r}
            fed.commit({})

    run(main, make_client(lambda ctx: ctx.client.name == "1" and ctx.round == 2))


def test_of_who_is_refused_when_folded_it_is_dropped() -> None:
    """A metric of another shape is found when the update meets the others."""
    client = umbel.ClientApp()

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        return umbel.Update(model=model, metrics={"x": np.zeros(2 if ctx.client.name == "1" else 3)})

    client.evaluate(lambda model, ctx: umbel.Metrics({"seen": ctx.state.get("n", 0)}))

    def main(fed: Any) -> None:
        for r in fed.rounds():
            got = fed.train(fed.initial, cohort=ALL, policy=umbel.rounds(quorum=0.5))
            assert [f.client for f in got.failures] == ["1"]
            assert count(fed) == {"0": r, "1": 0, "2": r}
            fed.commit({})

    run(main, client)


@pytest.mark.parametrize("on_miss", ["skip", "retry"])
def test_of_a_missed_quorum_it_is_dropped(on_miss: Any) -> None:
    tries: list[str] = []

    def fails(ctx: Any) -> bool:
        tries.append(ctx.client.name)
        return bool(ctx.client.name == "2" and len(tries) <= 3)

    def main(fed: Any) -> None:
        got = fed.train(fed.initial, cohort=ALL, policy=umbel.rounds(on_miss=on_miss))
        assert got.met is (on_miss == "retry")
        assert [f.client for f in got.failures] == ["2"]
        assert count(fed) == dict.fromkeys("012", int(on_miss == "retry"))
        fed.commit({"model": fed.initial + got.mean})

    result = run(main, make_client(fails), rounds=1)
    assert result.model is not None
    assert result.model["w"][0] == (1.0 if on_miss == "retry" else 0.0)
    assert len(tries) == (6 if on_miss == "retry" else 3)


def refusing(who: Callable[[list[str]], str]) -> tuple[umbel.ClientApp, list[str]]:
    """Clients of whom one refuses, given who was asked; and who is."""
    client, asked = umbel.ClientApp(), list[str]()

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        asked.append(ctx.client.name)
        if ctx.client.name == who(asked):
            raise Refused("its owner does not permit it")
        return umbel.Update(model=model)

    return client, asked


def test_nobody_is_asked_again_where_who_refuses_cannot_be_done_without() -> None:
    client, asked = refusing(lambda _: "1")

    def main(fed: Any) -> None:
        fed.train(fed.initial, cohort=ALL)

    with pytest.raises(QuorumMissed, match="1 of 3 clients answered before") as missed:
        run(main, client, rounds=1)
    assert asked == ["0", "1"]
    assert [(failure.client, failure.refused) for failure in missed.value.failures] == [("1", True)]


def test_another_cohort_is_asked_when_one_has_refused() -> None:
    client, asked = refusing(lambda asked: asked[0])

    def main(fed: Any) -> None:
        got = fed.train(fed.initial, cohort=umbel.sample.count(1), policy=umbel.rounds(retries=20))
        assert [failure.client for failure in got.failures] == asked[:1]
        fed.commit({})

    run(main, client, rounds=1, seed=3)  # the same client is drawn several times
    assert len(asked) == len(set(asked)) == 2


def test_of_who_was_not_needed_any_more_it_is_dropped() -> None:
    """The first failure makes the quorum impossible; who comes later is not even asked."""
    asked: list[str] = []

    def fails(ctx: Any) -> bool:
        asked.append(ctx.client.name)
        return bool(ctx.client.name == "1")

    def main(fed: Any) -> None:
        got = fed.train(fed.initial, cohort=ALL, policy=umbel.rounds(on_miss="skip"))
        assert (got.met, asked, got.cohort) == (False, ["0", "1"], 3)
        assert count(fed) == {"0": 0, "1": 0, "2": 0}
        fed.commit({})

    run(main, make_client(fails), rounds=1)


def test_a_spare_that_was_not_needed_does_not_train() -> None:
    def main(fed: Any) -> None:
        got = fed.train(fed.initial, cohort=umbel.sample.count(2), policy=umbel.rounds(spare=2))
        assert sum(count(fed).values()) == 2
        fed.commit({"clients": list(got.clients)})

    assert len(run(main, clients=6, rounds=1).state["clients"]) == 2


def test_spares_come_from_those_who_could_be_drawn() -> None:
    client = make_client(lambda ctx: ctx.client.name == "0")

    def main(fed: Any) -> None:
        european = umbel.sample.count(1).where(site="eu")
        got = fed.train(fed.initial, cohort=european, policy=umbel.rounds(spare=3))
        fed.commit({"clients": list(got.clients)})

    server = umbel.ServerApp(model=MODEL, rounds=1)
    server.main(main)
    labels = {name: {"site": "eu"} for name in "01"}
    for seed in range(4):
        result = umbel.run(server, client, on=umbel.Simulation(clients=9, labels=labels), seed=seed)
        assert result.state == {"clients": ["1"]}


def test_a_state_is_that_of_the_last_exchange_in_which_it_counted() -> None:
    def main(fed: Any) -> None:
        for r in fed.rounds():
            fed.train(fed.initial, cohort=ALL)
            fed.train(fed.initial, cohort=ALL)
            got = fed.query("count", cohort=ALL, aggregator=umbel.aggregate.concat())
            assert got.concat["n"].tolist() == [2 * r] * 3
            assert got.concat["asked"].tolist() == [r] * 3
            fed.commit({})

    run(main)


# --- crashes -------------------------------------------------------------------------------------------------------


def two_exchanges_a_round(stop_at: tuple[int, str] | None) -> Callable[[Any], None]:
    def main(fed: Any) -> None:
        model = fed.state["model"] if fed.state else fed.initial
        for r in fed.rounds():
            first = fed.train(model, cohort=umbel.sample.count(2), config={"n": r})
            if stop_at == (r, "between"):
                raise KeyboardInterrupt
            second = fed.train(model + first.mean, cohort=umbel.sample.count(2))
            if stop_at == (r, "after"):
                raise KeyboardInterrupt
            model = model + first.mean + second.mean * first.metrics["n"]
            fed.commit({"model": model}, metrics={"n": second.metrics["n"]})

    return main


@pytest.mark.parametrize("every", [1, 2, 10])
@pytest.mark.parametrize("at", [(1, "between"), (1, "after"), (2, "between"), (3, "after")])
def test_an_interrupted_run_goes_on_to_the_same_bits(at: tuple[int, str], every: int, tmp_path: Path) -> None:
    keep = [umbel.Checkpoint(every=every)]
    whole = run(two_exchanges_a_round(None), clients=5)
    with pytest.raises(KeyboardInterrupt):
        run(two_exchanges_a_round(at), clients=5, dir=tmp_path, callbacks=keep)
    again = run(two_exchanges_a_round(None), clients=5, dir=tmp_path, callbacks=keep)
    assert again.model == whole.model
    assert again.history == whole.history
    assert again.clients == whole.clients


def test_a_main_that_asks_something_else_after_a_crash_is_told_what_differs(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(two_exchanges_a_round((2, "between")), clients=5, dir=tmp_path)

    def other(fed: Any) -> None:
        for _ in fed.rounds():
            fed.train(fed.state["model"], cohort=umbel.sample.count(3), config={"n": 9})
            fed.commit({})

    with pytest.raises(umbel.errors.NotReproducible, match=r"round 2.*what differs: config, the cohort"):
        run(other, clients=5, dir=tmp_path)


def test_a_round_that_was_skipped_says_so_after_a_crash_too(tmp_path: Path) -> None:
    def main(fed: Any) -> None:
        for r in fed.rounds():
            got = fed.train(fed.initial, cohort=ALL, policy=umbel.rounds(on_miss="skip"))
            if r == 2 and not tmp_path.joinpath("mended").exists():
                tmp_path.joinpath("mended").touch()
                raise KeyboardInterrupt
            fed.commit({}, metrics={"met": got.met, "cohort": got.cohort})

    client = make_client(lambda ctx: ctx.round == 2 and ctx.client.name == "0")
    with pytest.raises(KeyboardInterrupt):
        run(main, client, dir=tmp_path / "run")
    result = run(main, client, dir=tmp_path / "run")
    assert result.history["met"].tolist() == [1, 0, 1]
    assert result.history["failed"].tolist() == [0, 1, 0]
    assert [f.round for f in result.failures] == [2]


@pytest.mark.parametrize("every", [1, 2])
def test_an_evaluation_that_nobody_answers_leaves_what_was_known_of_clients(every: int, tmp_path: Path) -> None:
    def main(fed: Any) -> None:
        for _ in fed.rounds():
            fed.evaluate(fed.initial, cohort=ALL, policy=umbel.rounds(quorum=0.1, on_miss="skip"))
            fed.commit({})

    client = make_client()

    @client.use
    def fail(model: Any, ctx: Any, call: Any) -> Any:
        if ctx.round == 2:
            raise OSError("told to")
        return call(model, ctx)

    whole = run(main, client, rounds=2)
    keep = [umbel.Checkpoint(every=every)]
    for rounds in (1, 2, 2):
        again = run(main, client, rounds=rounds, dir=tmp_path, callbacks=keep)
    assert again.clients == whole.clients
    assert whole.clients["0"].metrics == {"seen": 0}


# --- errors --------------------------------------------------------------------------------------------------------


def test_a_missed_quorum_lists_each_failure_once() -> None:
    def main(fed: Any) -> None:
        fed.train(fed.initial, cohort=ALL, policy=umbel.rounds(quorum=0.5, retries=2))

    with pytest.raises(QuorumMissed) as caught:
        run(main, make_client(lambda ctx: True), rounds=1)
    text = str(caught.value)
    assert text.count("client '0', train: its train handler raised OSError: told to") == 1
    assert "0 of 3 clients answered, asked 3 times before the quorum of 50% was out of reach" in text
    assert len(caught.value.failures) == 6


def test_a_step_of_the_server_that_overflows_is_not_committed(tmp_path: Path) -> None:
    """Else the directory would hold a model that nobody can train."""
    client = umbel.ClientApp()
    client.train(lambda model, ctx: umbel.Update(delta={"w": np.full(2, 10.0**ctx.round, np.float32)}))

    def server(lr: float) -> umbel.ServerApp:
        return umbel.ServerApp(MODEL, umbel.fed_avg(optimizer=umbel.optimize.sgd(lr=lr)), 3)

    on = umbel.Simulation(clients=2)
    with pytest.raises(umbel.errors.RunError, match=r"round 2: the server's step went out of bounds.*'w'.*\n.*lower"):
        umbel.run(server(1e30), client, on=on, seed=0, dir=tmp_path)
    kept = umbel.run(server(1e30), client, on=on, seed=0, dir=tmp_path, rounds=1)
    assert kept.model is not None
    assert np.isfinite(kept.model["w"]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_model_that_is_not_finite_is_refused_before_it_is_sent(bad: float) -> None:
    asked: list[str] = []
    client = umbel.ClientApp()
    client.train(lambda model, ctx: asked.append(ctx.client.name))
    wrong = {"v": np.zeros(3, np.float32), "w": np.array([0, bad], np.float32)}
    right = umbel.ServerApp(MODEL | {"v": np.zeros(3, np.float32)}, umbel.fed_avg(), 3)
    on = umbel.Simulation(clients=2)
    words = rf"entry 'w' is not finite: 1 of 2 elements, the first at \(1,\) is {bad}\n.*how it was made"
    with pytest.raises(UsageError, match="the initial model: " + words):
        umbel.run(umbel.ServerApp(wrong, umbel.fed_avg(), 3), client, on=on)
    with pytest.raises(UsageError, match="the initial model: " + words):
        umbel.run(right, client, on=on, initial=wrong)
    with pytest.raises(UsageError, match="the model given to fed.train: " + words):
        run(lambda fed: fed.train(wrong, cohort=ALL), client)
    assert not asked


def test_a_frozen_mask_may_be_infinite() -> None:
    model = umbel.Arrays(MODEL | {"mask": np.array([0, -np.inf])}, roles={"mask": "frozen"})
    client = umbel.ClientApp()
    client.train(lambda model, ctx: umbel.Update(delta={"w": np.ones(2, np.float32)}))
    result = umbel.run(umbel.ServerApp(model, umbel.fed_avg(), 1), client, on=umbel.Simulation(clients=2))
    assert result.failures == ()


def test_an_optimizer_that_can_step_no_more_ends_the_run(tmp_path: Path) -> None:
    """Squares that overflow leave the model finite, and every later step 0."""
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        return umbel.Update(delta={"w": np.full(2, 1e25 if ctx.round == 2 else 1.0, np.float32)})

    server = umbel.ServerApp(MODEL, umbel.fed_adam(), 3)
    with pytest.raises(umbel.errors.RunError, match=r"round 2: the server's step went out of bounds.*'w'.*\n.*clip"):
        umbel.run(server, client, on=umbel.Simulation(clients=2), seed=0, dir=tmp_path)


def test_a_client_cannot_end_the_run_by_what_it_calls_a_metric(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "umbel")
    client = umbel.ClientApp()

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        bad = {"loss.q50": 2.0} if ctx.client.name == "0" else {}
        return umbel.Update(model=model, metrics={"loss": 1.0, **bad})

    def main(fed: Any) -> None:
        for _ in fed.rounds():
            got = fed.train(fed.initial, cohort=ALL, metrics={"loss": umbel.metrics.quantiles(0.5)})
            fed.commit({}, train=got.metrics)

    result = run(main, client, rounds=2)
    assert result.history["loss.q50"].tolist() == [1.0, 1.0]
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "metric-left-out: 'loss.q50' of the metric 'loss.q50' is left out: 'loss' has a result of that name"
    ]


def test_two_rules_of_one_name_are_refused_before_anybody_is_asked() -> None:
    wrong = {"loss": umbel.metrics.quantiles(0.5), "loss.q50": umbel.metrics.mean()}
    with pytest.raises(UsageError, match=r"both give a result called 'loss\.q50'"):
        run(lambda fed: fed.train(fed.initial, cohort=ALL, metrics=wrong), make_client(), rounds=1)

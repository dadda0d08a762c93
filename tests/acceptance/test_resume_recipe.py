"""What a directory makes of the program that comes back to it: it goes on, gives the result, or says what differs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from umbel.errors import RecipeChanged

asked: list[str] = []
interrupted: list[int] = []
client = umbel.ClientApp()


@client.data
def load(ctx: Any) -> Any:
    asked.append("data")
    return ctx.rng.normal(size=4)


@client.train
def train(model: Any, ctx: Any) -> umbel.Update:
    asked.append("train")
    if ctx.round in interrupted:
        raise KeyboardInterrupt
    delta = ctx.config["lr"] * (ctx.data - model["w"]) + 0.01 * ctx.rng.normal(size=4)
    return umbel.Update(delta={"w": delta}, metrics={"loss": float(np.abs(delta).sum())})


@client.evaluate
def evaluate(model: Any, ctx: Any) -> umbel.Metrics:
    asked.append("evaluate")
    return umbel.Metrics({"error": float(np.abs(ctx.data - model["w"]).sum())})


def strategy(**changes: Any) -> Any:
    given = {
        "cohort": umbel.sample.fraction(0.6),
        "config": {"lr": umbel.schedule.cosine(0.5, rounds=15)},
        "evaluate": umbel.evaluation(every=5),
    }
    return umbel.fed_adam(**{"lr": 0.1, **given, **changes})


def make_server(**changes: Any) -> umbel.ServerApp:
    server = umbel.ServerApp(**{"model": {"w": np.zeros(4)}, "strategy": strategy(), **changes})

    @server.evaluate(every=3)
    def central(model: Any, ctx: Any) -> umbel.Metrics:
        asked.append("central")
        return umbel.Metrics({"norm": float(np.abs(model["w"]).sum())})

    return server


def run(where: Path | None, rounds: int = 6, **changes: Any) -> umbel.Result:
    given: dict[str, Any] = {
        "server": make_server(),
        "client": client,
        "on": umbel.Simulation(clients=5),
        "seed": 3,
        "rounds": rounds,
        "dir": where,
        **changes,
    }
    return umbel.run(given.pop("server"), given.pop("client"), **given)


def begin(where: Path, **changes: Any) -> None:
    """A run that is interrupted in round 3."""
    interrupted.append(3)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(where, **changes)
    finally:
        interrupted.clear()


def same(found: umbel.Result, wanted: umbel.Result) -> None:
    assert found.model == wanted.model
    assert found.best == wanted.best
    assert found.history == wanted.history
    assert found.state == wanted.state
    assert found.clients == wanted.clients
    assert found.status == wanted.status


# --- the same recipe -------------------------------------------------------------------------------


def test_an_unfinished_run_goes_on(tmp_path: Path) -> None:
    begin(tmp_path)
    same(run(tmp_path), run(None))


def test_a_finished_run_is_returned_without_asking_anybody(tmp_path: Path) -> None:
    wanted = run(tmp_path)
    asked.clear()
    found = run(tmp_path)
    assert asked == []
    same(found, wanted)
    assert found.failures == wanted.failures
    assert found.seed == wanted.seed


def test_the_seed_that_was_drawn_is_taken_again(tmp_path: Path) -> None:
    begin(tmp_path, seed=None)
    found = run(tmp_path, seed=None)
    same(found, run(None, seed=found.seed))


@pytest.mark.parametrize("keep", [[], [umbel.Checkpoint(every=4, best_on="loss")], [umbel.EarlyStopping("loss", 4)]])
def test_more_rounds_go_on_as_if_they_had_been_asked_for_at_once(keep: Sequence[Any], tmp_path: Path) -> None:
    wanted = run(None, 15, callbacks=keep)
    for first, second in ((5, 15), (1, 7), (7, 8)):
        directory = tmp_path / f"{first}"
        run(directory, first, callbacks=keep)
        run(directory, second, callbacks=keep)
        same(run(directory, 15, callbacks=keep), wanted)


@pytest.mark.parametrize("keep", [[], [umbel.Checkpoint(every=4, best_on="loss")]])
def test_more_rounds_for_a_run_that_is_not_finished(keep: Sequence[Any], tmp_path: Path) -> None:
    begin(tmp_path, callbacks=keep)
    same(run(tmp_path, 15, callbacks=keep), run(None, 15, callbacks=keep))


def test_more_rounds_that_were_asked_for_and_interrupted_at_once(tmp_path: Path) -> None:
    wanted = run(tmp_path, 2)
    begin(tmp_path, rounds=6)
    same(run(tmp_path, 2), wanted)  # nothing more was done
    begin(tmp_path, rounds=6)
    asked.clear()
    same(run(tmp_path, 6), run(None, 6))
    assert asked


def test_a_run_that_stopped_early_stays_stopped_and_goes_on_without_its_rule(tmp_path: Path) -> None:
    def enough(result: umbel.Result) -> str | None:
        return "enough" if len(result.history) >= 4 else None

    wanted = run(tmp_path, 9, callbacks=[enough])
    assert wanted.status == "stopped early: enough"
    asked.clear()
    same(run(tmp_path, 9, callbacks=[enough]), wanted)
    same(run(tmp_path, 12, callbacks=[enough]), wanted)
    assert asked == []
    same(run(tmp_path, 15), run(None, 15))


def test_callbacks_are_not_told_again_of_a_run_that_finished(tmp_path: Path) -> None:
    told: list[int] = []
    run(tmp_path, 3, callbacks=[lambda result: told.append(len(result.history))])
    run(tmp_path, 5, callbacks=[lambda result: told.append(len(result.history))])
    assert told == [1, 2, 3, 4, 5]


def test_a_callback_that_was_interrupted_is_asked_again(tmp_path: Path) -> None:
    told: list[int] = []

    def report(result: umbel.Result) -> str | None:
        told.append(len(result.history))
        if told == [1, 2]:
            raise KeyboardInterrupt
        return "enough" if len(result.history) == 2 else None

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, callbacks=[report])
    assert run(tmp_path, callbacks=[report]).status == "stopped early: enough"
    assert told == [1, 2, 2]


def test_failures_of_callbacks_are_kept(tmp_path: Path) -> None:
    def broken(result: umbel.Result) -> None:
        raise ConnectionError("no tracker there")

    run(tmp_path, 3, callbacks=[broken])
    found = run(tmp_path, 5)
    assert [(f.round, f.code) for f in found.failures] == [(r, "callback-failed") for r in (1, 2, 3)]


# --- another recipe --------------------------------------------------------------------------------

PARTS = [np.arange(i, 20, 5) for i in range(5)]
OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "seed": ({"seed": 4}, "seed: 3 before, 4 now"),
    "strategy": ({"server": make_server(strategy=strategy(lr=0.2))}, "strategy.optimizer.rule.lr: 0.1 before, 0.2 now"),
    "schedule": (
        {"server": make_server(strategy=strategy(config={"lr": umbel.schedule.cosine(0.5, rounds=30)}))},
        "strategy.config.lr.rounds: 15 before, 30 now",
    ),
    "cohort": (
        {"server": make_server(strategy=strategy(cohort=umbel.sample.count(3)))},
        "strategy.cohort.is: 'Fraction' before, 'Count' now",
    ),
    "number of clients": ({"on": umbel.Simulation(clients=6)}, "clients.count: 5 before, 6 now"),
    "names of clients": ({"on": umbel.Simulation(clients=list("abcde"))}, "clients.names and parts: "),
    "partition": ({"on": umbel.Simulation(clients=PARTS)}, "clients.names and parts: "),
    "settings": (
        {"on": umbel.Simulation(clients={str(i): {"path": f"{i}.csv"} for i in range(5)})},
        "clients.sites.0: None before, {'path': '0.csv'} now",
    ),
    "threads": ({"on": umbel.Simulation(clients=5, threads=2)}, "threads: 1 before, 2 now"),
    "initial model": ({"initial": {"w": np.ones(4)}}, "initial model.digest: "),
    "shape of the model": (
        {"server": make_server(model={"w": np.zeros(5)}), "initial": {"w": np.zeros(5)}},
        "initial model.entries.w: ",
    ),
    "best model": (
        {"callbacks": [umbel.Checkpoint(best_on="loss")]},
        "best model: None before, {'on': 'loss', 'mode': 'min'} now",
    ),
}


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("part", OTHER)
def test_the_difference_is_named_and_nothing_is_lost(part: str, finished: bool, tmp_path: Path) -> None:
    changes, words = OTHER[part]
    run(tmp_path) if finished else begin(tmp_path)
    with pytest.raises(RecipeChanged) as refused:
        run(tmp_path, **changes)
    assert any(line.startswith(words) for line in refused.value.differences), refused.value.differences
    assert words in str(refused.value)
    assert "give another dir=" in refused.value.advice
    same(run(tmp_path), run(None))


def test_only_what_differs_is_named(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(RecipeChanged) as refused:
        run(tmp_path, seed=4, server=make_server(strategy=strategy(lr=0.2)))
    assert list(refused.value.differences) == [
        "seed: 3 before, 4 now",
        "strategy.optimizer.rule.lr: 0.1 before, 0.2 now",
    ]


def test_many_differences_are_counted(tmp_path: Path) -> None:
    on = [umbel.Simulation(clients={f"{i}": {"n": n} for i in range(40)}) for n in (1, 2)]
    run(tmp_path, 1, on=on[0])
    with pytest.raises(RecipeChanged, match="and 20 more") as refused:
        run(tmp_path, 1, on=on[1])
    assert len(refused.value.differences) == 40


def test_another_partition_is_noticed_by_its_content(tmp_path: Path) -> None:
    run(tmp_path, on=umbel.Simulation(clients=PARTS))
    run(tmp_path, on=umbel.Simulation(clients=[part.copy() for part in PARTS]))
    swapped = [PARTS[1], PARTS[0], *PARTS[2:]]
    with pytest.raises(RecipeChanged, match=r"clients\.names and parts"):
        run(tmp_path, on=umbel.Simulation(clients=swapped))


def test_fewer_rounds_than_are_done(tmp_path: Path) -> None:
    run(tmp_path, 5)
    with pytest.raises(RecipeChanged, match="rounds: 5 are done, 3 are asked for now"):
        run(tmp_path, 3)


def test_another_initial_file_is_noticed_by_its_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    umbel.Arrays({"w": np.ones(4)}).save(one)
    umbel.Arrays({"w": np.ones(4)}).save(two)
    begin(tmp_path / "run", initial=one)
    same(run(tmp_path / "run", initial=two), run(None, initial=one))
    umbel.Arrays({"w": np.zeros(4) + 2}).save(two)
    with pytest.raises(RecipeChanged, match=r"initial model\.digest"):
        run(tmp_path / "run", initial=two)


def test_a_model_from_a_generator_that_nobody_seeded_is_made_once(tmp_path: Path) -> None:
    def factory() -> dict[str, Any]:
        return {"w": np.random.default_rng().normal(size=4)}

    begin(tmp_path, server=make_server(model=factory))
    initial = umbel.Arrays.load(tmp_path / "initial.safetensors")
    found = run(tmp_path, server=make_server(model=factory))
    same(found, run(None, initial=initial))
    same(run(tmp_path, server=make_server(model=factory)), found)
    with pytest.raises(RecipeChanged, match=r"initial model\.digest"):  # that one, however, was chosen
        run(tmp_path, server=make_server(model=factory), initial={"w": np.ones(4)})


def test_a_given_model_is_not_taken_for_one_that_nobody_seeded(tmp_path: Path) -> None:
    def factory() -> dict[str, Any]:
        return {"w": np.random.default_rng().normal(size=4)}

    begin(tmp_path, server=make_server(model=factory), initial={"w": np.ones(4)})
    with pytest.raises(RecipeChanged, match=r"initial model\.digest"):
        run(tmp_path, server=make_server(model=factory))


def test_a_best_model_need_not_be_asked_for_again_when_the_run_has_ended(tmp_path: Path) -> None:
    best = run(tmp_path, callbacks=[umbel.Checkpoint(best_on="loss")]).best
    assert best is not None
    assert run(tmp_path).best == best
    with pytest.raises(RecipeChanged, match="best model"):
        run(tmp_path, 9)


# --- code ------------------------------------------------------------------------------------------


def client_that(train: Callable[..., Any]) -> umbel.ClientApp:
    made = umbel.ClientApp()
    made.data(load)
    made.evaluate(evaluate)
    made.train(train)
    return made


def mended(model: Any, ctx: Any) -> umbel.Update:
    return train(model, ctx)


def test_mended_code_goes_on_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begin(tmp_path)
    with caplog.at_level(logging.WARNING, logger="umbel"):
        same(run(tmp_path, client=client_that(mended)), run(None))
    assert "code-changed: client.train differs" in caplog.text
    run(tmp_path, client=client_that(mended))  # from now on this is the code of the run


def test_changed_code_is_a_difference_once_the_run_has_ended(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(RecipeChanged) as refused:
        run(tmp_path, client=client_that(mended))
    assert list(refused.value.differences) == ["client.train: its code has changed since the run ended"]
    assert len(run(tmp_path, 7, client=client_that(mended)).history) == 7  # more rounds may have other code

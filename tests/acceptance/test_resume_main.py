"""A main of one's own that is interrupted: what it may do, and what it is told when it does something else."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from umbel.codec import fingerprint
from umbel.errors import NotReproducible
from umbel.store.files import FileStore

Main = Callable[[Any], object]
everyone = umbel.sample.everyone()


class Stop:
    """Interrupts the n-th task."""

    def __init__(self) -> None:
        self.left = -1

    def __call__(self, model: Any, ctx: Any, call: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return call(model, ctx)


def make_client() -> tuple[umbel.ClientApp, Stop, list[str]]:
    client, stop, asked = umbel.ClientApp(), Stop(), list[str]()
    client.use(stop)

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        asked.append("train")
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        return umbel.Update(delta={"w": ctx.rng.normal(size=2) * ctx.config.get("lr", 1.0)}, metrics={"loss": 1.0})

    @client.query("count")
    def count(model: Any, ctx: Any) -> umbel.Update:
        asked.append("count")
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        return umbel.Update(value={"n": ctx.rng.normal(size=2)})

    @client.evaluate
    def evaluate(model: Any, ctx: Any) -> umbel.Metrics:
        asked.append("evaluate")
        return umbel.Metrics({"far": float(np.abs(model["w"]).sum())})

    return client, stop, asked


def run(main: Main, where: Path | None, *, tasks: int = 0, rounds: int = 4, every: int = 1) -> tuple[Any, list[str]]:
    """The result, or None if it was interrupted in that task; and who was asked."""
    client, stop, asked = make_client()
    stop.left = tasks
    server = umbel.ServerApp(model={"w": np.zeros(2)}, rounds=rounds)
    server.main(main)
    result = None
    try:
        result = umbel.run(
            server,
            client,
            on=umbel.Simulation(clients=3),
            seed=4,
            dir=where,
            callbacks=[umbel.Checkpoint(every=every)],
        )
    except KeyboardInterrupt:
        assert tasks
    return result, asked


def same(found: umbel.Result, wanted: umbel.Result) -> None:
    assert found.model == wanted.model
    assert found.history == wanted.history
    assert fingerprint(found.state) == fingerprint(wanted.state)
    assert found.clients == wanted.clients


def states(directory: Path) -> list[Any]:
    store = FileStore(directory)
    found = [store.client_states.read(str(i)).get("n") for i in range(3)]
    store.close()
    return found


def counted(result: umbel.Result) -> list[int]:
    return [result.clients[str(i)].counted for i in range(3)]


def step(fed: Any, **changes: Any) -> None:
    """A round of three questions, whose arguments may be changed."""
    model = fed.state["model"] if fed.state else fed.initial
    given: dict[str, Any] = {"cohort": everyone, "config": {"lr": 0.5}, "metrics": {"loss": umbel.metrics.mean()}}
    got = fed.train(changes.get("model", model), **{**given, **{k: v for k, v in changes.items() if k != "model"}})
    fed.query("count", cohort=everyone)
    told = fed.evaluate(model, cohort=everyone)
    fed.commit({"model": model + got.mean}, metrics={**got.metrics, **told.metrics})


def plain(fed: Any) -> None:
    for _ in fed.rounds():
        step(fed)


# --- something else is asked -----------------------------------------------------------------------

CHANGES: dict[str, dict[str, Any]] = {
    "the model": {"model": umbel.Arrays({"w": np.ones(2)})},
    "config": {"config": {"lr": 0.25}},
    "the cohort": {"cohort": umbel.sample.count(3)},
    "the aggregator": {"aggregator": umbel.aggregate.mean(uniform=True)},
    "extra": {"extra": {"c": umbel.Arrays({"w": np.ones(2)})}},
    "the transforms": {"transforms": [umbel.transforms.clip(1.0)]},
    "the policy": {"policy": umbel.rounds(quorum=0.5)},
    "the metrics": {"metrics": {"loss": umbel.metrics.sum()}},
}


@pytest.mark.parametrize("part", CHANGES)
def test_the_difference_is_named_and_nothing_is_lost(part: str, tmp_path: Path) -> None:
    def other(fed: Any) -> None:
        for _ in fed.rounds():
            step(fed, **CHANGES[part])

    run(plain, tmp_path, tasks=9 + 5)  # in round 2: all have trained, and the question is under way
    with pytest.raises(NotReproducible, match=rf"round 2, call 1: .*what differs: {part}\n") as refused:
        run(other, tmp_path)
    assert "draw from fed.rng" in refused.value.advice
    found, asked = run(plain, tmp_path)
    same(found, run(plain, None)[0])
    assert asked.count("train") == 2 * 3  # what had been trained was not trained again


def test_another_kind_of_question_is_named(tmp_path: Path) -> None:
    def other(fed: Any) -> None:
        for _ in fed.rounds():
            fed.evaluate(fed.initial, cohort=everyone)

    run(plain, tmp_path, tasks=5)
    with pytest.raises(NotReproducible, match=r"round 1, call 1: .*what differs: the call,"):
        run(other, tmp_path)


def test_a_main_that_looks_at_the_clock_is_told(tmp_path: Path) -> None:
    clock = iter(range(100))

    def main(fed: Any) -> None:
        for _ in fed.rounds():
            step(fed, config={"lr": float(next(clock))})

    run(main, tmp_path, tasks=9 + 5)
    with pytest.raises(NotReproducible, match="what differs: config\n"):
        run(main, tmp_path)


def test_asking_less_than_before_is_noticed(tmp_path: Path) -> None:
    def less(fed: Any) -> None:
        for _ in fed.rounds():
            fed.commit({"model": fed.initial})

    run(plain, tmp_path, tasks=9 + 8)  # two questions of round 2 are answered
    with pytest.raises(NotReproducible, match="round 2: before the interruption main asked more than the 0 times"):
        run(less, tmp_path)
    same(run(plain, tmp_path)[0], run(plain, None)[0])


# --- what a main may do ----------------------------------------------------------------------------


def draws_from_generators(fed: Any) -> None:
    for _ in fed.rounds():
        lr = random.random() + np.random.random()
        step(fed, config={"lr": lr + float(fed.rng("lr").random())})


def asks_before_its_rounds(fed: Any) -> None:
    config = {"at": umbel.schedule.linear(1, 0, rounds=9)}
    first = fed.query("count", fed.initial, cohort=umbel.sample.count(2), config=config)
    shift = fed.rng("shift").normal() + np.random.random()
    s = fed.state or {"model": fed.initial}
    for _ in fed.rounds():
        got = fed.train(s["model"], cohort=umbel.sample.count(2))
        s["model"] = s["model"] + got.mean * float(first.value["n"][0] + shift)
        fed.commit(s)


def asks_twice_before_its_rounds(fed: Any) -> None:
    scale = sum(float(fed.query("count", cohort=everyone).value["n"][0]) for _ in range(2))
    s = fed.state or {"model": fed.initial * scale}
    for _ in fed.rounds():
        s["model"] = s["model"] + fed.train(s["model"], cohort=everyone).mean * scale
        fed.commit(s)


def asks_at_the_very_start_only(fed: Any) -> None:
    s = fed.state or {"model": fed.initial, "n": float(fed.query("count", cohort=everyone).value["n"][0])}
    for _ in fed.rounds():
        s["model"] = s["model"] + fed.train(s["model"], cohort=everyone).mean * s["n"]
        fed.commit(s)


def ends_by_itself(fed: Any) -> None:
    for r in fed.rounds(1000):
        step(fed)
        if r == 3:
            break


def asks_after_its_rounds(fed: Any) -> None:
    plain(fed)
    fed.query("count", cohort=everyone)


def keeps_numbers_and_arrays_of_numpys(fed: Any) -> None:
    basis = np.random.default_rng(0).normal(size=(300, 7)).astype(np.float32).T  # sums depend on its order in memory
    s = fed.state or {"model": fed.initial, "lr": np.float32(0.1), "basis": basis, "small": basis[:, :9].T.copy().T}
    for _ in fed.rounds():
        got = fed.train(s["model"], cohort=everyone, config={"lr": s["lr"]})
        scale = float(s["basis"].sum() + s["small"].sum())
        s["model"] = s["model"] + got.mean * scale
        s["lr"], s["basis"], s["small"] = s["lr"] * 0.9, s["basis"] * np.float32(0.9), s["small"] * np.float32(0.7)
        fed.commit(s, metrics={"lr": s["lr"], "scale": scale})


MAINS = [
    keeps_numbers_and_arrays_of_numpys,
    plain,
    draws_from_generators,
    asks_before_its_rounds,
    asks_twice_before_its_rounds,
    asks_at_the_very_start_only,
    ends_by_itself,
    asks_after_its_rounds,
]


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("main", MAINS)
def test_interrupted_at_any_task_it_ends_with_the_same_bits(main: Main, every: int, tmp_path: Path) -> None:
    wanted, asked = run(main, None)
    undisturbed, _ = run(main, tmp_path / "undisturbed", every=every)
    same(undisturbed, wanted)
    for tasks in range(2, len(asked) + 1, 5):
        directory = tmp_path / str(tasks)
        found = None
        while found is None:  # interrupted again and again, but each time a little later
            found, _ = run(main, directory, tasks=tasks, every=every)
            tasks += 3  # noqa: PLW2901
        same(found, wanted)
        assert states(directory) == states(tmp_path / "undisturbed")


def test_what_is_asked_before_the_rounds_is_asked_once_in_a_run(tmp_path: Path) -> None:
    _, asked = run(asks_before_its_rounds, tmp_path, tasks=2 + 3 * 2 + 1)  # in round 4
    assert asked.count("count") == 2
    found, asked = run(asks_before_its_rounds, tmp_path)
    assert asked == ["train"] * 2
    assert counted(found) == states(tmp_path)
    _, asked = run(asks_before_its_rounds, tmp_path, rounds=6)  # more rounds, and still not
    assert asked == ["train"] * 4


def test_other_questions_before_the_rounds_are_refused(tmp_path: Path) -> None:
    def baseline(fed: Any) -> None:
        s = fed.state or {"model": fed.initial}
        fed.evaluate(s["model"], cohort=everyone)  # of another model each time main is started
        plain(fed)

    def curious(fed: Any) -> None:
        if fed.state is not None:
            fed.query("count", cohort=everyone)
        plain(fed)

    for main, tasks, words in ((baseline, 3 + 9 + 1, "differs: the model"), (curious, 10, "asks 1 times before")):
        run(main, tmp_path / main.__name__, tasks=tasks)
        with pytest.raises(NotReproducible, match=words):
            run(main, tmp_path / main.__name__)


def test_a_question_after_the_last_round_is_not_in_the_way_of_more_rounds(tmp_path: Path) -> None:
    wanted, _ = run(asks_after_its_rounds, None, rounds=6)
    for tasks in (None, 4 * 9 + 2):  # the run ended; it was interrupted in that question
        directory = tmp_path / str(tasks)
        run(asks_after_its_rounds, directory, tasks=tasks or 0)
        found, _ = run(asks_after_its_rounds, directory, rounds=6)
        same(found, wanted)


def test_after_its_question_behind_the_last_round_it_is_not_asked_again(tmp_path: Path) -> None:
    def main(fed: Any) -> None:
        asks_after_its_rounds(fed)
        fed.query("count", cohort=everyone)

    run(main, tmp_path, tasks=4 * 9 + 3 + 2)  # in the second of the two
    _, asked = run(main, tmp_path)
    assert asked == ["count"] * 3


def test_a_main_without_rounds_commits_and_goes_on(tmp_path: Path) -> None:
    """It cannot be known where such a main begins its first round; what it has in fed.state says where it stands."""

    def main(fed: Any) -> None:
        s = fed.state or {"model": fed.initial, "n": 0}
        while s["n"] < 4:
            got = fed.train(s["model"], cohort=everyone)
            s = {"model": s["model"] + got.mean, "n": s["n"] + 1}
            fed.commit(s)

    wanted, asked = run(main, None)
    for tasks in range(1, len(asked) + 1):
        run(main, tmp_path / str(tasks), tasks=tasks)
        same(run(main, tmp_path / str(tasks))[0], wanted)


def test_state_that_main_goes_on_to_change_is_kept_as_it_was_committed(tmp_path: Path) -> None:
    def main(fed: Any) -> None:
        s = fed.state or {"model": fed.initial, "list": [], "array": np.zeros(2)}
        for r in fed.rounds():
            s["list"].append(r)
            s["array"] += r
            got = fed.train(s["model"], cohort=everyone)
            s["model"] = s["model"] + got.mean
            fed.commit(s)

    wanted, asked = run(main, None)
    for tasks in range(1, len(asked) + 1):
        run(main, tmp_path / str(tasks), tasks=tasks, every=3)
        found, _ = run(main, tmp_path / str(tasks), every=3)
        assert found.state["list"] == [1, 2, 3, 4]
        assert found.state["array"].tolist() == [10, 10]
        assert found.model == wanted.model


def test_a_question_behind_the_commit_of_its_round_is_refused() -> None:
    """A resumed main would not come to it again, and the rounds that follow would be other ones."""

    def main(fed: Any) -> None:
        for _ in fed.rounds():
            step(fed)
            fed.evaluate(fed.initial, cohort=everyone)

    with pytest.raises(umbel.errors.UsageError, match=r"round 1 asks \(evaluate\) behind its commit"):
        run(main, None)


def test_state_that_cannot_be_written_down_is_named(tmp_path: Path) -> None:
    def main(fed: Any) -> None:
        for _ in fed.rounds():
            fed.commit({"model": fed.initial, "more": [1, {"here": object()}]})

    with pytest.raises(umbel.errors.UsageError, match=r"the commit's state\['more'\]\[1\]\['here'\] is a object"):
        run(main, tmp_path)

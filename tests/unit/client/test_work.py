"""Doing tasks: what is kept between them, and what names their random numbers."""

# ruff: noqa: ARG005  # handlers take what they are given
from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import umbel
from umbel import aggregate
from umbel.client import loads
from umbel.client.context import ClientInfo
from umbel.client.work import Bench, Done
from umbel.engine.question import Question
from umbel.errors import Failure
from umbel.rows import Rows

MODEL = umbel.Arrays({"w": np.zeros(2, np.float32)})
MEAN = aggregate.mean()


def question(**changes: Any) -> Question:
    given = {"kind": "train", "name": "train", "seed": 1, "round": 1, "call": 1, "model": MODEL, "aggregator": MEAN}
    given = given | {"expected": MEAN.expects(MODEL)} | changes
    return Question(**given)  # type: ignore[arg-type]  # plain arguments


def drawing(seed: int = 1) -> Bench:
    client = umbel.ClientApp()

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        draws = [ctx.rng.random(), np.random.rand()]  # as user code draws
        return umbel.Update(model=model, metrics={"rng": draws[0], "global": draws[1]})

    return Bench(client, seed)


def draw(bench: Bench, name: str = "a", **changes: Any) -> tuple[float, float]:
    done = bench.do(question(**changes), ClientInfo(name=name), {})
    assert isinstance(done, Done)
    assert isinstance(done.update, umbel.Update)
    return done.update.metrics["rng"], done.update.metrics["global"]


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", "1"]), st.integers(1, 3), st.integers(1, 2)),
        unique=True,
    )
)
def test_a_task_draws_the_same_when_it_is_done_again_and_no_two_tasks_do(
    tasks: list[tuple[int, str, int, int]],
) -> None:
    found = [draw(drawing(seed), name, round=r, call=call) for seed, name, r, call in tasks]
    again = [draw(drawing(seed), name, round=r, call=call) for seed, name, r, call in reversed(tasks)]
    assert found == again[::-1]
    assert len({x for pair in found for x in pair}) == 2 * len(tasks)


def test_a_round_that_is_begun_anew_draws_anew() -> None:
    bench = drawing()
    assert draw(bench, attempt=0) != draw(bench, attempt=1)
    assert draw(bench, sequence=5) == draw(bench, sequence=6), "but the number of the exchange means nothing"


def test_set_up_is_done_once_and_data_once_per_client() -> None:
    calls: Counter[str] = Counter()
    client = umbel.ClientApp()
    client.setup(lambda ctx: calls.update(["setup"]))
    client.data(lambda ctx: calls.update([ctx.client.name]))
    client.train(lambda model, ctx: umbel.Update(model=model))
    bench = Bench(client, 1)
    for number in range(3):
        for name in "abc":
            bench.do(question(round=number + 1), ClientInfo(name=name), {})
    assert calls == {"setup": 1, "a": 1, "b": 1, "c": 1}


def test_data_that_was_not_used_for_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "_CACHED_CLIENTS", 2)
    loaded: list[str] = []
    client = umbel.ClientApp()

    @client.data
    def load(ctx: Any) -> float:
        loaded.append(ctx.client.name)
        return float(ctx.rng.random())

    client.train(lambda model, ctx: umbel.Update(model=model, metrics={"data": ctx.data}))
    bench = Bench(client, 1)
    seen: dict[str, set[float]] = {}
    for name in "abacabcc":
        done = bench.do(question(), ClientInfo(name=name), {})
        assert isinstance(done, Done)
        assert isinstance(done.update, umbel.Update)
        seen.setdefault(name, set()).add(done.update.metrics["data"])
    assert "".join(loaded) == "abcbc"
    assert all(len(values) == 1 for values in seen.values()), "what is loaded again is the same"


def test_a_set_up_that_reads_the_site_is_done_for_each_site() -> None:
    """Else it would depend on which client happens to come first, and a resumed run would compute something else."""
    calls: list[str] = []
    client = umbel.ClientApp()

    @client.setup
    def setup(ctx: Any) -> str:
        calls.append(ctx.site["model"])
        return str(ctx.site["model"])

    client.train(lambda model, ctx: umbel.Update(model=model, metrics={"same": ctx.shared == ctx.site["model"]}))
    for order in ("abcab", "cbacb"):
        calls.clear()
        bench = Bench(client, 1)
        for name in order:
            site = {"model": "large" if name == "c" else "small"}
            done = bench.do(question(), ClientInfo(name=name, site=site), {})
            assert isinstance(done, Done)
            assert isinstance(done.update, umbel.Update)
            assert done.update.metrics["same"] == 1
        assert sorted(calls) == ["large", "small"]


def test_a_handler_that_failed_is_not_kept() -> None:
    tries: Counter[str] = Counter()
    client = umbel.ClientApp()

    @client.setup
    def setup(ctx: Any) -> str:
        tries["setup"] += 1
        if tries["setup"] == 1:
            raise OSError("disk")
        return "shared"

    client.train(lambda model, ctx: umbel.Update(model=model))
    bench = Bench(client, 1)
    first = bench.do(question(), ClientInfo(name="a"), {})
    assert isinstance(first, Failure)
    assert first.message == "its setup handler raised OSError: disk"
    assert isinstance(bench.do(question(), ClientInfo(name="a"), {}), Done)
    assert tries["setup"] == 2


def test_a_state_that_did_not_change_is_not_written() -> None:
    client = umbel.ClientApp()
    client.train(lambda model, ctx: umbel.Update(model=model))

    @client.query("forget")
    def forget(model: Any, ctx: Any) -> umbel.Update:
        ctx.state.clear()
        return umbel.Update(value={"n": 1})

    bench = Bench(client, 1)
    done = bench.do(question(), ClientInfo(name="a"), {})
    assert isinstance(done, Done)
    assert done.state is None
    query = question(kind="query", name="forget", model=None, expected=MEAN.expects(None))
    done = bench.do(query, ClientInfo(name="a"), {"x": 1})
    assert isinstance(done, Done)
    assert done.state == {}, "while one that was emptied is"


def test_local_entries_stay_in_the_clients_state() -> None:
    model = umbel.Arrays({"w": np.zeros(2), "head": np.zeros(1)}, roles={"head": "local"})
    client = umbel.ClientApp()
    client.train(lambda model, ctx: umbel.Update(model={"w": model["w"] + 1, "head": model["head"] + 1}))
    client.evaluate(lambda model, ctx: umbel.Metrics({"head": model["head"][0], "w": model["w"][0]}))
    bench, state = Bench(client, 1), dict[str, Any]()
    for number in (1, 2, 3):
        train = question(model=model, expected=MEAN.expects(model), round=number)
        done = bench.do(train, ClientInfo(name="a"), state)
        assert isinstance(done, Done)
        assert isinstance(done.update, umbel.Update)
        assert list(done.update.arrays) == ["w"], "it never leaves"
        state = dict(done.state or {})
    done = bench.do(question(kind="evaluate", name="evaluate", model=model), ClientInfo(name="a"), state)
    assert isinstance(done, Done)
    assert isinstance(done.update, umbel.Metrics)
    assert done.update.values == {"head": 3.0, "w": 0.0}
    assert done.state is None


def test_a_failure_names_handler_client_round_and_shows_the_users_lines_only() -> None:
    client = umbel.ClientApp()

    @client.use
    def layer(model: Any, ctx: Any, call: Any) -> Any:
        return call(model, ctx)

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        return umbel.Update(model=model, weight=-1)

    bench = Bench(client, 1)
    failure = bench.do(question(round=7), ClientInfo(name="a"), {})
    assert isinstance(failure, Failure)
    assert (failure.client, failure.round, failure.kind, failure.code) == ("a", 7, "train", "bad-update")
    lines = [line.strip() for line in failure.traceback.splitlines()]
    files = [line for line in lines if line.startswith("File")]
    assert "in layer" in files[0]
    assert any("in train" in line for line in files)
    refused = bench.do(
        question(name="train", expected=MEAN.expects(umbel.Arrays({"v": np.ones(1)}))), ClientInfo(name="a"), {}
    )
    assert isinstance(refused, Failure)


def test_a_failure_to_load_shows_the_users_lines_only() -> None:
    client = umbel.ClientApp()

    @client.data
    def load(ctx: Any) -> Any:
        raise FileNotFoundError(ctx.client.name)

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        return umbel.Update(model=model, weight=len(ctx.data))

    failure = Bench(client, 1).do(question(round=7), ClientInfo(name="a"), {})
    assert isinstance(failure, Failure)
    assert "its data handler raised FileNotFoundError" in failure.message
    files = [line for line in failure.traceback.splitlines() if line.strip().startswith('File "')]
    assert files[-1].endswith("in load")
    assert all(__file__ in line for line in files)


def test_ctrl_c_is_the_users_and_ends_the_run() -> None:
    client = umbel.ClientApp()

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Bench(client, 1).do(question(), ClientInfo(name="a"), {})


def keeping() -> Bench:
    """Clients that draw, keep a state, and fail if their name is odd."""
    client = umbel.ClientApp()

    @client.data
    def load(ctx: Any) -> Any:
        if ctx.client.name == "13":
            raise ValueError("no data")
        return np.random.rand()

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        if int(ctx.client.name) % 2:
            raise OutOfMemoryError if ctx.client.name == "5" else RuntimeError("odd")
        if int(ctx.client.name) % 3 == 0:
            ctx.state["seen"] = ctx.state.get("seen", 0) + 1
        return umbel.Update(model=model + np.random.rand() + ctx.data, metrics={"rng": ctx.rng.random()})

    return Bench(client, 1)


class OutOfMemoryError(RuntimeError):
    """As the frameworks call it."""


def memory(size: int) -> Any:
    return np.empty(size, np.uint8)


def told(done: Done | Failure) -> Any:
    if isinstance(done, Failure):
        return done.client, done.message
    assert isinstance(done.update, umbel.Update)
    return done.update.arrays.digest(), done.update.metrics, done.state


@given(st.lists(st.integers(0, 20), unique=True), st.integers(1, 3))
def test_tasks_in_turn_give_what_they_give_alone(numbers: list[int], round: int) -> None:
    clients, asked = [ClientInfo(name=str(n)) for n in numbers], question(round=round)
    states: dict[str, dict[str, Any]] = {str(n): {"seen": n} for n in numbers if n % 3 == 0}
    begun: list[int] = []
    bench = keeping()
    found: dict[int, Any] = {}
    full: dict[int, bool] = {}
    for places, done in bench.do_in_turn(
        asked, clients, lambda name: states.get(name, {}), begin=begun.append, room=memory
    ):
        ones: list[Done | Failure] = (
            [Done(done.update(i), None) for i in range(len(done))] if isinstance(done, Rows) else [done]
        )
        assert len(ones) == len(places)
        found |= dict(zip(places, map(told, ones), strict=True))
        full |= dict.fromkeys(places, bench.full)
    alone = [keeping().do(asked, client, states.get(client.name, {})) for client in clients]
    assert found == dict(enumerate(map(told, alone)))
    assert full == {i: n == 5 for i, n in enumerate(numbers)}
    assert set(begun) == set(range(len(numbers)))


def test_an_exchange_that_ends_while_a_state_is_asked_for_is_nobodys_failure() -> None:
    class Over(Exception): ...

    def state(name: str) -> dict[str, Any]:
        raise Over

    clients = [ClientInfo(name=name) for name in "ab"]
    with pytest.raises(Over):
        list(keeping().do_in_turn(question(), clients, state, begin=lambda _: None, room=memory))


def test_ctrl_c_ends_tasks_in_turn() -> None:
    client = umbel.ClientApp()

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        raise KeyboardInterrupt

    clients = [ClientInfo(name=name) for name in "ab"]
    with pytest.raises(KeyboardInterrupt):
        list(Bench(client, 1).do_in_turn(question(), clients, lambda _: {}, begin=lambda _: None, room=memory))


def test_between_exchanges_nothing_of_the_question_is_held() -> None:
    bench = drawing()
    asked = question(extra={"more": umbel.Arrays({"x": np.ones(3)})})
    bench.do(asked, ClientInfo(name="a"), {})
    gone = weakref.ref(asked.extra["more"])
    bench.rest()
    del asked
    assert gone() is None

"""JAX: trees to models and back, and declared local training."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("jax")

import jax
import jax.numpy as jnp

import umbel
import umbel.jax
from umbel.arrays import Arrays
from umbel.client.context import ClientInfo
from umbel.client.work import Bench, Done
from umbel.correction import Correction, LocalRule, LocalTask, Proximal
from umbel.engine.question import Question
from umbel.errors import EntryError, Failure, UsageError

Data = dict[str, tuple[Any, Any]]


class Layer(NamedTuple):
    w: Any
    b: Any


class Push(LocalRule):
    """A pull of 0.3, and an offset of each client's own."""

    def correction(self, task: LocalTask) -> Correction:
        offset = task.model.zeros() + 0.01 * (1 + int(task.client) % 3)
        return Correction(pull=0.3, anchor=task.model, offset=offset)


# --- trees ------------------------------------------------------------------------------------------


def test_a_tree_goes_into_a_model_and_back() -> None:
    tree = {
        "layers": [Layer(jnp.ones((2, 3)), jnp.zeros(3)), (jnp.arange(4), jnp.array(True))],
        "scale": jnp.array(2.0, jnp.bfloat16),
        "nothing": None,
    }
    model = umbel.jax.arrays(tree)
    assert list(model) == ["layers/0/w", "layers/0/b", "layers/1/0", "layers/1/1", "scale"]
    assert [model.spec.by_name[n].role for n in model] == ["trained", "trained", "counter", "counter", "trained"]
    moved = umbel.jax.into(tree, model + 1)
    assert jax.tree_util.tree_structure(moved) == jax.tree_util.tree_structure(tree)
    np.testing.assert_array_equal(moved["layers"][0].w, np.full((2, 3), 2.0))
    assert moved["scale"].dtype == jnp.bfloat16
    assert moved["scale"] == 3
    np.testing.assert_array_equal(tree["layers"][0].w, np.ones((2, 3)))
    assert umbel.jax.arrays(umbel.jax.into(tree, model)) == model


def test_what_the_model_lacks_stays() -> None:
    tree = {"a": jnp.zeros(2), "b": jnp.ones(2)}
    moved = umbel.jax.into(tree, Arrays({"a": np.full(2, 5, np.float32)}))
    np.testing.assert_array_equal(moved["a"], [5, 5])
    assert moved["b"] is tree["b"]


def test_a_tree_shares_no_memory_with_the_model() -> None:
    model = umbel.jax.arrays({"w": jnp.zeros(1024)})
    moved = umbel.jax.into({"w": jnp.zeros(1024)}, model)
    assert not np.shares_memory(np.asarray(moved["w"]), model["w"])


def test_an_array_alone_is_a_tree() -> None:
    model = umbel.jax.arrays(jnp.arange(3.0))
    assert list(model) == ["value"]
    np.testing.assert_array_equal(umbel.jax.into(jnp.zeros(3), model), [0, 1, 2])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"c": np.zeros(2, np.float32)}, "no leaf 'c'"),
        ({"a": np.zeros(3, np.float32)}, r"shape \(3,\) in the model and \(2,\) in the tree"),
        ({"a": np.zeros(2)}, "is F64 in the model and float32 in the tree"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(EntryError, match=said):
        umbel.jax.into({"a": jnp.zeros(2)}, Arrays(values))
    with pytest.raises(UsageError, match="not dict"):
        umbel.jax.into({"a": jnp.zeros(2)}, values)  # type: ignore[arg-type]  # what is tested


@pytest.mark.parametrize(
    "tree", [{"a": "text"}, {"a": jax.random.key(0)}, {"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}}]
)
def test_what_is_no_array_is_refused(tree: Any) -> None:
    with pytest.raises(EntryError, match="'a"):
        umbel.jax.arrays(tree)


# --- declared training --------------------------------------------------------------------------------


def loss(params: Any, x: Any, y: Any) -> Any:
    hidden = jnp.tanh(x @ params["first"]["w"] + params["first"]["b"])
    logits = hidden @ params["last"]["w"]
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()


def made() -> Arrays:
    rng = np.random.default_rng(1)
    first = {"w": jnp.array(rng.normal(size=(4, 5)), jnp.float32), "b": jnp.zeros(5)}
    return umbel.jax.arrays({"first": first, "last": {"w": jnp.array(rng.normal(size=(5, 3)), jnp.float32)}})


def drawn(sizes: Sequence[int]) -> Data:
    rng = np.random.default_rng(0)
    return {f"{i:03}": (rng.normal(size=(n, 4)).astype(np.float32), rng.integers(0, 3, n)) for i, n in enumerate(sizes)}


@functools.cache
def plainly(**options: Any) -> umbel.jax.LocalSgd:
    """Declared training on `loss`, compiled once for all tests."""
    return umbel.jax.local_sgd(loss, **{"lr": 0.1, "batch": 4} | options)


def bench(data: Data, of: Any = None, **options: Any) -> Bench:
    client = umbel.ClientApp()
    client.train(umbel.jax.local_sgd(of, lr=0.1, batch=4, **options) if of else plainly(**options))
    client.data(lambda ctx: data[ctx.client.name])
    return Bench(client, seed=1)


def asked(model: Arrays, **options: Any) -> Question:
    mean = umbel.aggregate.mean()
    common: dict[str, Any] = {"kind": "train", "name": "train", "seed": 1, "round": 1, "call": 1}
    return Question(**common, model=model, aggregator=mean, expected=mean.expects(model), **options)


def update_of(done: Done | Failure) -> umbel.Update:
    assert isinstance(done, Done), done
    assert isinstance(done.update, umbel.Update)
    return done.update


def alone(at: Bench, question: Question, data: Data) -> list[umbel.Update]:
    return [update_of(at.do(question, ClientInfo(name=name), {})) for name in data]


def together(at: Bench, question: Question, data: Data) -> list[umbel.Update]:
    done = list(at.do_many(question, [ClientInfo(name=name) for name in data], lambda _: {}))
    return [update_of(d) for d in done]


def assert_same(many: Sequence[umbel.Update], one: Sequence[umbel.Update]) -> None:
    for mine, its in zip(many, one, strict=True):
        assert mine.arrays.spec == its.arrays.spec
        assert mine.arrays.difference(its.arrays, rtol=2e-5, atol=2e-5) == ""
        assert (mine.weight, mine.steps) == (its.weight, its.steps)
        assert mine.metrics == pytest.approx(its.metrics, rel=1e-4)


def by_hand(model: Arrays, x: Any, y: Any, correction: Correction | None) -> tuple[Arrays, float]:
    """Two epochs of SGD, one step after the other, uncompiled."""
    params = {"first": {"w": model["first/w"], "b": model["first/b"]}, "last": {"w": model["last/w"]}}
    anchor, total = params, 0.0
    for _ in range(2):
        for i in range(0, len(x), 4):
            value, gradients = jax.value_and_grad(loss)(params, jnp.array(x[i : i + 4]), jnp.array(y[i : i + 4]))
            total += float(value) * len(x[i : i + 4])
            if correction is not None:
                offset = float(correction.offset["last/w"][0, 0]) if correction.offset is not None else 0.0
                pull = correction.pull
                gradients = jax.tree.map(
                    lambda g, w, a, c=pull, o=offset: g + c * (w - a) + o, gradients, params, anchor
                )
            params = jax.tree.map(lambda w, g: w - 0.1 * g, params, gradients)
    return umbel.jax.arrays(params), total


@pytest.mark.parametrize("rule", [None, Push(), Proximal(mu=0.5)])
def test_it_does_what_a_loop_does(rule: LocalRule | None) -> None:
    model, data = made(), drawn([9, 4, 1])
    for update, (name, (x, y)) in zip(
        alone(bench(data, epochs=2), asked(model, rule=rule), data), data.items(), strict=True
    ):
        task = LocalTask(client=name, round=1, model=model, extra={}, config={}, state={})
        expected, total = by_hand(model, x, y, rule.correction(task) if rule else None)
        assert update.arrays.difference(expected, rtol=1e-5, atol=1e-6) == ""
        assert update.metrics["loss"] == pytest.approx(total / len(x) / 2, rel=1e-5)
        assert (update.weight, update.steps) == (len(x), 2 * -(-len(x) // 4))


@settings(max_examples=8)  # each may compile two programs
@given(
    sizes=st.lists(st.integers(0, 8), min_size=2, max_size=9),
    steps=st.fixed_dictionaries({"epochs": st.integers(1, 2), "shuffle": st.booleans()}),
    rule=st.sampled_from([None, Push(), Proximal(mu=0.5)]),
)
def test_together_as_alone(sizes: list[int], steps: dict[str, Any], rule: LocalRule | None) -> None:
    model, data = made(), drawn(sizes)
    at, question = bench(data, **steps), asked(model, rule=rule)
    assert_same(together(at, question, data), alone(at, question, data))


def test_many_batches_are_few_programs() -> None:
    data = drawn([39, 41, 45, 47])  # nine to eleven full batches
    at, question = bench(data), asked(made())
    assert_same(together(at, question, data), alone(at, question, data))


def test_bits_do_not_depend_on_who_does_a_group() -> None:
    data = drawn([7, 3, 12] * 30)
    question, names = asked(made(), rule=Push()), list(data)
    groups = [{n: data[n] for n in names[i : i + 64]} for i in (0, 64)]
    expected = [[u.arrays for u in together(bench(data, shuffle=True), question, g)] for g in groups]
    other = bench(data, loss, shuffle=True)  # compiled again
    alone(other, question, groups[0])
    for group, mine in zip(reversed(groups), reversed(expected), strict=True):
        assert [u.arrays for u in together(other, question, group)] == mine


def test_a_structure_can_be_given_and_some_of_it_is_not_trained() -> None:
    tree = {"layers": [Layer(jnp.ones((4, 3)), jnp.zeros(3))], "shift": jnp.ones(4), "seen": jnp.array(3)}

    def linear(params: Any, x: Any, y: Any) -> Any:
        w, b = params["layers"][0]
        return ((x + params["shift"]) @ w + b).var() + params["seen"] * y.mean()

    model = umbel.jax.arrays(tree, roles=[umbel.entries("shift", role="buffer")])
    data = drawn([8] * 9)
    for like in (tree, lambda: tree):
        at = bench(data, linear, like=like)
        one = alone(at, asked(model), data)
        assert_same(together(at, asked(model), data), one)
        for update in one:
            assert set(update.arrays) == {"layers/0/w", "layers/0/b", "shift"}
            np.testing.assert_array_equal(update.arrays["shift"], np.ones(4))
            assert (update.arrays["layers/0/w"] != 1).any()
    (failure,) = [bench(data, linear, like={"other": jnp.ones(3)}).do(asked(model), ClientInfo(name="000"), {})]
    assert isinstance(failure, Failure)
    assert "the tree has no leaf 'layers/0/w'" in failure.message


def test_a_client_with_bad_data_fails_alone() -> None:
    data = drawn([8] * 9)
    data["004"] = (data["004"][0] * np.float32("nan"), data["004"][1])
    done = list(bench(data).do_many(asked(made()), [ClientInfo(name=n) for n in data], lambda _: {}))
    assert [i for i, d in enumerate(done) if isinstance(d, Failure)] == [4]
    data["004"] = (data["004"][0][:, :3], data["004"][1])
    done = list(bench(data).do_many(asked(made()), [ClientInfo(name=n) for n in data], lambda _: {}))
    assert [i for i, d in enumerate(done) if isinstance(d, Failure)] == [4]


def test_convolutions_are_not_stacked_on_a_cpu() -> None:
    if jax.default_backend() != "cpu":
        pytest.skip("needs a cpu: JAX computes elsewhere")

    def convolved(params: Any, x: Any, y: Any) -> Any:
        return (jnp.convolve(x.reshape(-1), params["w"]) ** 2).mean() + 0 * y.mean()

    data, model = drawn([8] * 9), umbel.jax.arrays({"w": jnp.ones(3)})
    at = bench(data, convolved)
    assert [u.arrays for u in together(at, asked(model), data)] == [u.arrays for u in alone(at, asked(model), data)]


def test_arguments_that_make_no_sense_are_refused() -> None:
    for wrong in ({"lr": -1}, {"batch": 0}, {"epochs": 1.5}, {"shuffle": None}):
        options: dict[str, Any] = {"lr": 0.1, "batch": 1} | wrong
        with pytest.raises(UsageError, match="local_sgd"):
            umbel.jax.local_sgd(loss, **options)
    with pytest.raises(UsageError, match="loss is a int"):
        umbel.jax.local_sgd(3, lr=0.1, batch=1)  # type: ignore[arg-type]  # what is tested


def test_a_federation_runs_as_it_stands() -> None:
    data = drawn([12] * 4)
    client = umbel.ClientApp()
    client.train(umbel.jax.local_sgd(loss, lr="lr", batch=4))
    client.data(lambda ctx: data[ctx.client.name])
    server = umbel.ServerApp(model=made(), strategy=umbel.fed_avg(config={"lr": 0.3}), rounds=3)
    result = umbel.run(server, client, on=umbel.Simulation(clients=list(data)), seed=1)
    assert result.history["loss"][-1] < result.history["loss"][0]

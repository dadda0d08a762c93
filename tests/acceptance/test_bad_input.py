"""Bad input, given on purpose: each kind is refused in words, the others go on to the bit, and nothing is lost.

One client of three misbehaves in round 2 of 3. With every client needed, the run ends with an error that names the
client, the round and what was wrong; with ``dir=`` the same call goes on once the client is mended, to the bits of a
run in which nothing had happened. With two of three enough, the run has the bits of one without that client.
"""

# ruff: noqa: ARG002, ARG005  # handlers take what they are given
# What is wrong on purpose:
# mypy: disable-error-code="arg-type, dict-item, func-returns-value"
from __future__ import annotations

import asyncio
import csv
import itertools
import logging
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from umbel.errors import Failure, QuorumMissed

ALL = umbel.sample.everyone()
BAD, ROUND = "1", 2
MODEL: dict[str, Any] = {"w": np.zeros((2, 3), np.float32), "b": np.zeros((), np.float64)}


def good(model: Any, ctx: Any) -> umbel.Update:
    step = np.float32(ctx.rng.normal())
    ctx.state["trainings"] = ctx.state.get("trainings", 0) + 1
    return umbel.Update(
        model={"w": model["w"] + step, "b": model["b"] - ctx.round},
        weight=1 + int(ctx.client.name),
        metrics={"loss": float(step), "trainings": ctx.state["trainings"]},
    )


def changed(**changes: Any) -> Callable[[Any, Any], umbel.Update]:
    """A client that returns the model with other values, another weight, other metrics."""
    others = {name: changes.pop(name) for name in ("weight", "metrics") if name in changes}
    return lambda model, ctx: umbel.Update(model=dict(model.items()) | changes, **others)


def raising(kind: type[BaseException], *arguments: Any) -> Callable[[Any, Any], umbel.Update]:
    def train(model: Any, ctx: Any) -> umbel.Update:
        raise kind(*arguments)

    return train


def keeping(**state: Any) -> Callable[[Any, Any], umbel.Update]:
    def train(model: Any, ctx: Any) -> umbel.Update:
        ctx.state.update(state)
        return good(model, ctx)

    return train


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("not even its text")

    __repr__ = __str__


class Strange(BaseException):
    """Not an Exception."""


class Colour:
    """No array."""


def recursion(model: Any, ctx: Any) -> Any:
    return recursion(model, ctx)


def there(n: int) -> Any:
    return back(n + 1)


def back(n: int) -> Any:
    return there(n + 1)


def numpy_warnings_as_errors(model: Any, ctx: Any) -> umbel.Update:
    with np.errstate(all="raise"):
        return umbel.Update(model={"w": model["w"] / np.float32(0), "b": model["b"]})


def python_warnings_as_errors(model: Any, ctx: Any) -> umbel.Update:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return umbel.Update(model={"w": np.log(model["w"] - 1), "b": model["b"]})


def mutated(**fields: Any) -> Callable[[Any, Any], umbel.Update]:
    def train(model: Any, ctx: Any) -> umbel.Update:
        update = good(model, ctx)
        for name, value in fields.items():
            setattr(update, name, value)
        return update

    return train


async def answer() -> int:
    return 1


async def sleeping() -> None:
    await asyncio.sleep(0)


NAN, INF = float("nan"), float("inf")
W = MODEL["w"]
# what the client does in round 2, and what the error says of it
MISTAKES: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    # it raises
    "ValueError": (raising(ValueError, "no such file"), r"its train handler raised ValueError: no such file"),
    "without a text": (raising(AssertionError), r"its train handler raised AssertionError$"),
    "of several lines": (raising(ValueError, "one\ntwo"), r"ValueError: one\ntwo"),
    "of a class of ours": (raising(umbel.errors.UsageError, "mine"), r"^mine$"),
    "unprintable": (raising(Unprintable), r"Unprintable: \(its text cannot be shown: __str__ raised ValueError\)"),
    "with a huge text": (raising(ValueError, "x" * 1_000_000), r"x{400}\n\.\.\. [\d,]+ characters are left out"),
    "a group": (raising(ExceptionGroup, "several", [ValueError("a"), KeyError("b")]), r"ExceptionGroup: several"),
    "StopIteration": (raising(StopIteration), r"raised StopIteration"),
    "sys.exit": (lambda model, ctx: sys.exit("bye"), r"its train handler raised SystemExit: bye"),
    "sys.exit without a text": (lambda model, ctx: sys.exit(), r"raised SystemExit$"),
    "GeneratorExit": (raising(GeneratorExit), r"raised GeneratorExit"),
    "CancelledError": (raising(asyncio.CancelledError), r"raised CancelledError"),
    "a BaseException": (raising(Strange, "odd"), r"raised Strange: odd"),
    "MemoryError": (lambda model, ctx: np.zeros(10**15), r"raised _?(Array)?MemoryError: Unable to allocate"),
    "recursion": (recursion, r"raised RecursionError: maximum recursion depth exceeded"),
    "recursion of two": (lambda model, ctx: there(0), r"raised RecursionError"),
    "NumPy's warnings": (numpy_warnings_as_errors, r"raised FloatingPointError: (invalid|divide)"),
    "Python's warnings": (python_warnings_as_errors, r"raised RuntimeWarning: invalid value"),
    "writes to the model": (lambda model, ctx: model["w"].fill(1), r"raised ValueError: .*read-only"),
    "writes to the config": (lambda model, ctx: ctx.config.update(lr=2), r"ctx\.config is read-only"),
    # it returns something else
    "None": (lambda model, ctx: None, r"its train handler returned nothing \(None\)\n  What to do: return umbel\.Upd"),
    "a dictionary": (lambda model, ctx: {"w": W}, r"returned a dict\n"),
    "a tuple": (lambda model, ctx: (W, 3), r"returned a tuple\n"),
    "an array": (lambda model, ctx: W, r"returned a ndarray\n"),
    "the model": (lambda model, ctx: model, r"returned a Arrays\n"),
    "Metrics": (lambda model, ctx: umbel.Metrics({}), r"returned a Metrics\n"),
    "a class": (lambda model, ctx: umbel.Update, r"returned a type\n"),
    "a coroutine": (lambda model, ctx: sleeping(), r"returned a coroutine\n"),
    "a generator": (lambda model, ctx: (x for x in "abc"), r"returned a generator\n"),
    # its arrays
    "NaN": (
        changed(w=np.full_like(W, np.nan)),
        r"entry 'w' is not finite: 6 of 6 elements, the first at \(0, 0\) is n",
    ),
    "one infinity": (changed(w=W + np.float32([0, 0, INF])), r"entry 'w' is not finite: 2 of 6 .* \(0, 2\) is inf"),
    "a NaN scalar": (changed(b=np.float64(NAN)), r"entry 'b' is not finite"),
    "another shape": (changed(w=W.T), r"entry 'w' has shape \(3, 2\), \(2, 3\) was sent"),
    "another rank": (changed(w=W[None]), r"entry 'w' has shape \(1, 2, 3\), \(2, 3\) was sent"),
    "a scalar as a vector": (changed(b=np.zeros(1)), r"entry 'b' has shape \(1,\), \(\) was sent"),
    "float64": (changed(w=W.astype(np.float64)), r"entry 'w' has dtype F64, F32 was sent\n.*astype"),
    "float16": (changed(w=W.astype(np.float16)), r"entry 'w' has dtype F16, F32 was sent"),
    "integers": (changed(w=W.astype(np.int32)), r"entry 'w' has dtype I32, F32 was sent"),
    "booleans": (changed(w=W.astype(bool)), r"entry 'w' has dtype BOOL"),
    "complex numbers": (changed(w=W.astype(np.complex64)), r"entry 'w' has dtype complex64"),
    "dates": (changed(w=np.zeros(3, "M8[s]")), r"entry 'w' has dtype datetime64"),
    "text": (changed(w=np.array(["a"])), r"entry 'w' has dtype <U1"),
    "objects": (changed(w=np.array([None])), r"entry 'w' has dtype object"),
    "ragged lists": (changed(w=[[1], [1, 2]]), r"entry 'w' is no array"),
    "a masked array": (changed(w=np.ma.masked_array(W, W == 0)), r"entry 'w' has a mask\n.*filled"),
    "something else": (changed(w=Colour()), r"entry 'w' has dtype object"),
    "bytes": (changed(w=b"123"), r"entry 'w' "),
    "a missing entry": (lambda model, ctx: umbel.Update(model={"w": W}), r"entry 'b' is missing\n  What to do: return"),
    "no entries": (lambda model, ctx: umbel.Update(model={}), r"entry 'w' is missing"),
    "an extra entry": (changed(c=W), r"entry 'c' was not in the model that was sent"),
    "another name": (
        lambda model, ctx: umbel.Update(model={"W": model["w"], "b": model["b"]}),
        r"entry 'W' was not in the model",
    ),
    "a name that is no text": (lambda model, ctx: umbel.Update(model={3: W}), r"entry names are strings, not int"),
    "a value": (lambda model, ctx: umbel.Update(value={"w": W}), r"it returned a value, but a model is aggregated"),
    "model and delta": (lambda model, ctx: umbel.Update(model=model, delta=model), r"exactly one of model=, delta="),
    "nothing in it": (lambda model, ctx: umbel.Update(), r"exactly one of model=, delta= and value="),
    "a list as a model": (lambda model, ctx: umbel.Update(model=[W]), r"model= is a list"),
    # its weight
    "a negative weight": (changed(weight=-1), r"weight is -1\n  What to do: return 0, or a number between"),
    "weight NaN": (changed(weight=NAN), r"weight is nan"),
    "weight inf": (changed(weight=INF), r"weight is inf"),
    "a weight out of proportion": (changed(weight=1e300), r"weight is 1e\+300\n"),
    "a weight beyond all": (changed(weight=10**400), r"weight is 1000"),
    "weight as text": (changed(weight="many"), r"weight is 'many'"),
    "weight as a digit": (changed(weight="5"), r"weight is '5'"),
    "weight None": (changed(weight=None), r"weight is None"),
    "weight as a list": (changed(weight=[1, 2]), r"weight is \[1, 2\]"),
    "a weight set later": (mutated(weight=NAN), r"weight is nan"),
    # its metrics
    "metric NaN": (changed(metrics={"loss": NAN}), r"metric 'loss' is nan"),
    "a million NaN": (changed(metrics={"x": [NAN] * 10**6}), r"metric 'x' is \[nan, .*left out here.*leave it out"),
    "metric inf": (changed(metrics={"loss": -INF}), r"metric 'loss' is -inf"),
    "metric as text": (changed(metrics={"loss": "low"}), r"metric 'loss' is no number"),
    "metric as digits": (changed(metrics={"loss": "0.5"}), r"metric 'loss' is no number: it is of dtype <U3"),
    "metric as bytes": (changed(metrics={"loss": b"0.5"}), r"metric 'loss' is no number: it is of dtype \|S3"),
    "a masked metric": (changed(metrics={"loss": np.ma.masked}), r"metric 'loss' is no number: it is masked"),
    "a complex metric": (
        changed(metrics={"loss": np.complex128(1 + 2j)}),
        r"metric 'loss' is no number: .* complex128",
    ),
    "a date as metric": (
        changed(metrics={"loss": np.datetime64("2020-01-01")}),
        r"metric 'loss' is no number: .* datet",
    ),
    "a metric called None": (changed(metrics={None: 1.0}), r"a metric is called None\n.*names are text"),
    "a metric called 3": (changed(metrics={3: 1}), r"a metric is called 3\n.*names are text"),
    "metric None": (changed(metrics={"loss": None}), r"metric 'loss' is "),
    "a nested metric": (changed(metrics={"loss": {"a": 1.0}}), r"metric 'loss' is no number"),
    "an object as metric": (changed(metrics={"loss": Colour()}), r"metric 'loss' is no number"),
    "101 metrics": (changed(metrics={str(i): 1.0 for i in range(101)}), r"there are 101 numbers in metrics, 100 may"),
    "a large metric": (changed(metrics={"data": np.zeros(101)}), r"there are 101 numbers in metrics, 100 may"),
    "a list of metrics": (changed(metrics=[1.0]), r"metrics are a list"),
    "metrics set later": (mutated(metrics={"loss": NAN}), r"metric 'loss' is nan"),
    "a metric of another shape": (changed(metrics={"loss": [1.0, 2.0]}), r"metric 'loss' has shape \(2,\), .* \(\)"),
    # its extra arrays
    "an extra that nobody asked for": (
        lambda model, ctx: umbel.Update(model=model, extra={"c": {"x": W}}),
        r"nobody asked for extra='c'\n.*aggregators=",
    ),
    "an array as extra": (
        lambda model, ctx: umbel.Update(model=model, extra=W),
        r"extra= is a ndarray\n.*name each set",
    ),
    "a model as extra": (lambda model, ctx: umbel.Update(model=model, extra=model), r"extra= is a Arrays\n.*name each"),
    # changed since it was made
    "arrays set to text": (mutated(arrays="x"), r"arrays is a str\n.*return a mapping"),
    "arrays set to a mapping that does not fit": (mutated(arrays={"w": W.T}), r"entry 'w' has shape"),
    "extra set to None": (mutated(extra=None), r"extra= is a NoneType\n.*name each set"),
    "a kind that there is not": (mutated(kind="foo"), r"its kind is 'foo'\n.*\"model\", \"delta\" or \"value\""),
    "steps set to text": (mutated(steps="many"), r"steps is 'many'"),
    "steps as text": (lambda model, ctx: umbel.Update(model=model, steps="many"), r"steps is 'many'"),
    "an extra without a name": (lambda model, ctx: umbel.Update(model=model, extra={"": model}), r"extra=''"),
    "a list as extra": (
        lambda model, ctx: umbel.Update(model=model, extra={"c": [1]}),
        r"extra\['c'\] is a list",
    ),
    # its state
    "an object in its state": (keeping(net=Colour()), r"ctx\.state\['net'\] is a Colour\n  What to do: .*NumPy"),
    "a very long integer in its state": (keeping(n=10**5000), r"ctx\.state\['n'\] is an integer of 16,610 bits\n"),
    "a list in its state": (keeping(seen=[1, 2]), r"ctx\.state\['seen'\] is a list"),
    "an array of objects": (keeping(x=np.array([None])), r"ctx\.state\['x'\] is a ndarray of dtype object"),
    "a state without names": (lambda model, ctx: ctx.state.__setitem__(3, 1) or good(model, ctx), r"the name 3\n"),
    "a state that is none": (lambda model, ctx: setattr(ctx, "state", 5) or good(model, ctx), r"TypeError"),
}


def make_client(bad: Callable[[Any, Any], Any] = good, *, rounds: tuple[int, ...] = (ROUND,)) -> umbel.ClientApp:
    client = umbel.ClientApp()

    @client.train
    def train(model: Any, ctx: Any) -> Any:
        misbehaves = ctx.client.name == BAD and ctx.round in rounds
        return bad(model, ctx) if misbehaves else good(model, ctx)

    return client


def make_server(rounds: int = 3, **policy: Any) -> umbel.ServerApp:
    strategy = umbel.fed_avg(config={"lr": 1.0}, rounds=umbel.rounds(**policy))
    return umbel.ServerApp(model=MODEL, strategy=strategy, rounds=rounds)


def run(client: umbel.ClientApp, clients: Any = 3, *, server: umbel.ServerApp | None = None, **arguments: Any) -> Any:
    return umbel.run(server or make_server(), client, on=umbel.Simulation(clients=clients), seed=3, **arguments)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "umbel")


@pytest.mark.parametrize("name", MISTAKES)
def test_the_error_names_client_and_round_and_once_it_is_mended_the_run_goes_on(name: str, tmp_path: Path) -> None:
    bad, says = MISTAKES[name]
    server = make_server(on_miss="stop")
    with pytest.raises(QuorumMissed) as caught:
        run(make_client(bad), server=server, dir=tmp_path / "run")
    (failure,) = caught.value.failures
    assert (failure.client, failure.round, failure.kind) == (BAD, ROUND, "train")
    assert re.search(says, failure.message, re.DOTALL), failure.message
    assert str(failure) in str(caught.value), "the error shows it"
    assert len(str(caught.value)) < 20_000, "and no more than people read"
    assert "  What to do: " in str(caught.value)
    assert "umbel/client/work.py" not in failure.traceback, "their code is not what the reader looks for"

    mended = run(make_client(), server=server, dir=tmp_path / "run")
    straight = run(make_client(), server=server)
    assert mended.model == straight.model
    assert mended.history == straight.history
    assert mended.history["trainings"].tolist() == [1.0, 2.0, 3.0], "the failed training left no state behind"


@pytest.mark.parametrize("name", MISTAKES)
def test_where_two_of_three_are_enough_the_others_have_the_bits_of_a_run_without_it(name: str) -> None:
    bad, says = MISTAKES[name]
    result = run(make_client(bad, rounds=(1, 2, 3)), server=make_server(quorum=0.6))
    without = run(make_client(), clients=["0", "2"])
    assert result.status == "finished"
    assert result.model == without.model
    for column in ("loss", "trainings", "folded"):
        assert result.history[column].tolist() == without.history[column].tolist()
    assert result.history["failed"].tolist() == [1, 1, 1]
    assert [(f.client, f.round) for f in result.failures] == [(BAD, r) for r in (1, 2, 3)]
    assert all(re.search(says, f.message, re.DOTALL) for f in result.failures)
    assert (result.clients[BAD].counted, result.clients[BAD].failed) == (0, 3)


def test_a_mistake_in_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    def tensor(model: Any, ctx: Any) -> Any:
        return torch.zeros(2)

    def wrong(model: Any, ctx: Any) -> Any:
        return umbel.Update(model={"w": torch.full((2, 3), torch.nan, requires_grad=True), "b": torch.zeros(())})

    def kept(model: Any, ctx: Any) -> Any:
        ctx.state["momentum"] = torch.zeros(2)
        return good(model, ctx)

    for bad, says in (
        (tensor, "returned a Tensor"),
        (wrong, "entry 'w' is no array: .*requires grad"),
        (kept, r"\['momentum'\] is a Tensor\n.*tensor\.numpy\(\)"),
    ):
        with pytest.raises(QuorumMissed, match=f"(?s){says}"):
            run(make_client(bad), server=make_server(on_miss="stop"))


# --- the other handlers --------------------------------------------------------------------------------------------


def broken(model_or_ctx: Any, *rest: Any) -> Any:
    ctx = rest[0] if rest else model_or_ctx
    if ctx.client.name in (BAD, ""):
        raise OSError("no such file")
    return umbel.Metrics({"accuracy": 1.0}) if rest else "data"


def with_handler(kind: str) -> umbel.ClientApp:
    client = make_client()
    if kind == "use":
        client.use(lambda model, ctx, call: broken(model, ctx) and call(model, ctx))
    else:
        getattr(client, kind)(broken)
    return client


@pytest.mark.parametrize(
    ("kind", "asked", "says"),
    [
        ("setup", "train", "its setup handler raised OSError: no such file"),
        ("data", "train", "its data handler raised OSError: no such file"),
        ("use", "train", "its train handler raised OSError: no such file"),
    ],
)
def test_a_handler_that_raises_is_named(kind: str, asked: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(QuorumMissed) as caught:
        run(with_handler(kind), server=make_server(on_miss="stop"), dir=tmp_path / "run")
    failure = caught.value.failures[0]
    assert (failure.kind, failure.message) == (asked, says)
    assert "in broken" in failure.traceback
    mended = make_client()
    if kind != "use":
        getattr(mended, kind)(lambda *_: umbel.Metrics({"accuracy": 1.0}))
    assert run(mended, server=make_server(on_miss="stop"), dir=tmp_path / "run").status == "finished"


def test_an_evaluation_that_fails_at_one_client_is_a_failure_and_the_run_goes_on() -> None:
    result = run(with_handler("evaluate"))
    assert result.status == "finished"
    assert {f.client for f in result.failures} == {BAD}
    assert result.failures[0].message == "its evaluate handler raised OSError: no such file"
    assert result.history["accuracy"].tolist() == [1.0] * len(result.history)


def test_a_query_that_raises_is_named() -> None:
    client = umbel.ClientApp()
    client.query("count")(broken)
    server = umbel.ServerApp(rounds=1)

    @server.main
    def main(fed: Any) -> None:
        fed.query("count", cohort=umbel.sample.everyone(), policy=umbel.rounds(on_miss="stop"))

    with pytest.raises(QuorumMissed, match=r"round 1, client '0', query 'count': its query 'count' handler returned"):
        umbel.run(server, client, on=umbel.Simulation(clients=2), seed=0)


@pytest.mark.parametrize("bad", [lambda m, c: None, lambda m, c: 0.9, lambda m, c: {"accuracy": 1}, good])
def test_an_evaluation_returns_metrics(bad: Callable[[Any, Any], Any]) -> None:
    client = make_client()
    client.evaluate(bad)
    with pytest.raises(QuorumMissed, match=r"its evaluate handler returned|ctx\.state in evaluate is read-only"):
        run(client, server=make_server(on_miss="stop"))


ONCE: dict[str, Callable[[Any], Any]] = {
    "generator": lambda ctx: (x for x in range(3)),
    "zip": lambda ctx: zip("ab", "cd", strict=True),
    "map": lambda ctx: map(str, range(3)),
    "list_iterator": lambda ctx: iter([1, 2]),
    "TextIOWrapper": lambda ctx: open(__file__, encoding="utf-8"),  # noqa: SIM115
    "reader": lambda ctx: csv.reader(["a,b"]),
    "coroutine": lambda ctx: answer(),
}


@pytest.mark.parametrize("kind", ONCE)
def test_what_data_returns_can_be_used_in_every_round(kind: str) -> None:
    client = make_client()
    client.data(ONCE[kind])
    with pytest.raises(QuorumMissed, match=rf"its data handler returned a {kind}.*\n.*for example a list"):
        run(client)


def test_data_may_be_an_endless_stream() -> None:
    client = umbel.ClientApp()
    client.data(lambda ctx: itertools.cycle([1.0, 2.0]))
    client.train(lambda model, ctx: umbel.Update(model=model, metrics={"next": next(ctx.data)}))
    assert run(client).history["next"].tolist() == [1, 2, 1]


@pytest.mark.parametrize("where", ["train", "evaluate", "extra", "server"])
@pytest.mark.parametrize("raises", [False, True])
def test_what_is_written_behind_numpys_back_ends_the_run(where: str, raises: bool) -> None:
    torch = pytest.importorskip("torch")
    client, server = umbel.ClientApp(), umbel.ServerApp(model=MODEL, rounds=1)

    def spoil(model: Any, at: str) -> None:
        if at == where:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch says it once in a process, and goes on
                torch.from_numpy(model["w"])[0, 0] = 7
            if raises:
                raise ValueError

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        spoil(model, "train")
        spoil(ctx.extra["more"], "extra")
        return umbel.Update(model=model)

    @client.evaluate
    def evaluate(model: Any, ctx: Any) -> umbel.Metrics:
        spoil(model, "evaluate")
        return umbel.Metrics({})

    @server.evaluate
    def test(model: Any, ctx: Any) -> umbel.Metrics:
        spoil(model, "server")
        return umbel.Metrics({})

    @server.main
    def main(fed: Any) -> None:
        for _ in fed.rounds():
            got = fed.train(fed.initial, cohort=ALL, extra={"more": umbel.Arrays(MODEL)})
            fed.evaluate(fed.initial, cohort=ALL)
            fed.commit({"model": fed.initial + got.mean})

    whose = "the server's evaluate" if where == "server" else "client '0'"
    with pytest.raises(umbel.errors.RunError, match=rf"round 1.*{whose}.* wrote into the arrays.*\n.*change a copy"):
        run(client, server=server)


def test_a_metric_whose_shape_differs_fails_the_client_and_not_the_run() -> None:
    client = make_client()

    @client.evaluate
    def evaluate(model: Any, ctx: Any) -> umbel.Metrics:
        return umbel.Metrics({"recall": np.zeros(3 if ctx.client.name == BAD else 2)})

    result = run(client, server=make_server(quorum=0.6))
    assert {(f.client, f.kind) for f in result.failures} == {(BAD, "evaluate")}
    assert result.history["recall"].shape == (3, 2)
    assert "metric 'recall' has shape (3,), the clients before it returned (2,)" in result.failures[0].message


def test_middleware_is_checked_like_a_handler() -> None:
    client = make_client()

    @client.use
    def forgetful(model: Any, ctx: Any, call: Any) -> None:
        call(model, ctx)

    with pytest.raises(QuorumMissed, match=r"its train handler returned nothing"):
        run(client)


def test_debug_lets_everything_through_and_says_where() -> None:
    for bad, error in (
        (raising(KeyError, "column"), KeyError),
        (lambda model, ctx: sys.exit(3), SystemExit),
        (changed(weight=-1), umbel.errors.BadUpdate),
        (changed(w=W.T), umbel.errors.BadUpdate),
    ):
        with pytest.raises(error) as caught:
            run(make_client(bad), debug=True)
        assert caught.value.__notes__ == ["train of client '1' in round 2, with debug=True"]


def test_a_callback_and_a_central_evaluation_that_raise_are_reported_and_the_run_goes_on() -> None:
    server = make_server()

    @server.evaluate(every=2)
    def test(model: Any, ctx: Any) -> umbel.Metrics:
        raise Unprintable

    def tracker(result: umbel.Result) -> None:
        raise ConnectionError("no network")

    result = run(make_client(), server=server, callbacks=[tracker])
    assert result.status == "finished"
    assert result.model == run(make_client()).model
    assert [(f.client, f.round, f.kind, f.code) for f in result.failures if f.client == "tracker"] == [
        ("tracker", r, "callback", "callback-failed") for r in (1, 2, 3)
    ]
    (failure,) = [f for f in result.failures if f.client == "server"]
    assert (failure.round, failure.kind, failure.code) == (2, "central evaluation", "central-failed")
    assert "Unprintable: (its text cannot be shown" in failure.message


# --- cohorts and policies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clients", [0, [], {}, ()])
def test_an_empty_population(clients: Any, tmp_path: Path) -> None:
    with pytest.raises(
        umbel.errors.EmptyPopulation, match=r"round 1: there is no client to ask\n  What to do: give umb"
    ):
        run(make_client(), clients, dir=tmp_path)
    assert run(make_client(), 3, dir=tmp_path).model == run(make_client(), 3).model, "nothing stands in the way"


def test_an_empty_cohort_by_chance_is_a_round_with_nothing_in_it() -> None:
    strategy = umbel.fed_adam(cohort=umbel.sample.poisson(0.05))
    result = run(make_client(), server=umbel.ServerApp(model=MODEL, strategy=strategy, rounds=20))
    empty = result.history["cohort"] == 0
    assert empty.any()
    assert not empty.all()
    assert np.isnan(result.history["loss"])[empty].all()
    assert result.history["folded"].tolist() == result.history["cohort"].tolist()
    first = umbel.run(
        umbel.ServerApp(model=MODEL, strategy=umbel.fed_avg(cohort=umbel.sample.poisson(1e-9)), rounds=2),
        make_client(),
        on=umbel.Simulation(clients=3),
        seed=1,
    )
    assert first.model == umbel.Arrays(MODEL), "nobody moved it"


@pytest.mark.parametrize("on_miss", ["retry", "stop"])
def test_all_clients_failing(on_miss: Any) -> None:
    def ill(model: Any, ctx: Any) -> Any:
        raise OSError(f"disk of {ctx.client.name}")

    client = umbel.ClientApp()
    client.train(ill)
    with pytest.raises(QuorumMissed) as caught:
        run(client, server=make_server(quorum=0.5, on_miss=on_miss, retries=2))
    assert "0 of 3 clients" in str(caught.value)
    assert len(caught.value.failures) == (3 if on_miss == "retry" else 1) * 2
    assert caught.value.retryable


def test_a_missed_quorum_that_is_skipped() -> None:
    result = run(make_client(raising(OSError, "ill")), server=make_server(on_miss="skip"))
    assert result.status == "finished"
    assert result.history["folded"].tolist() == [3, 0, 3]
    assert result.history["failed"].tolist() == [0, 1, 0]
    assert result.history["trainings"].tolist() == pytest.approx([1, np.nan, 2], nan_ok=True)
    assert [c.counted for c in result.clients.values()] == [2, 2, 2]


def test_a_missed_quorum_is_tried_again_with_another_cohort() -> None:
    strategy = umbel.fed_avg(cohort=umbel.sample.count(1), rounds=umbel.rounds(retries=20))
    result = run(make_client(raising(OSError, "ill"), rounds=(1, 2, 3)), server=umbel.ServerApp(MODEL, strategy, 3))
    assert result.history["folded"].tolist() == [1, 1, 1]
    assert {f.client for f in result.failures} <= {BAD}


def test_a_spare_takes_the_place_of_who_fails() -> None:
    strategy = umbel.fed_avg(cohort=umbel.sample.count(3), rounds=umbel.rounds(spare=2, on_miss="stop"))
    server = umbel.ServerApp(MODEL, strategy, 6)
    result = run(make_client(raising(OSError, "ill"), rounds=tuple(range(9))), 6, server=server)
    assert result.history["folded"].tolist() == [3] * 6
    assert result.history["failed"].sum() > 0
    assert BAD not in [name for name, client in result.clients.items() if client.counted]
    untouched = result.history["failed"] == 0
    assert untouched.any(), "and who was not needed did not train"
    assert result.history["cohort"][untouched].tolist() == [3] * untouched.sum()


def test_more_clients_are_needed_than_there_are() -> None:
    with pytest.raises(umbel.errors.EmptyPopulation, match="round 1 needs min_nodes=4 clients, 3 are there"):
        run(make_client(), server=make_server(min_nodes=4))


def test_a_sampler_that_draws_strangers() -> None:
    @dataclass(frozen=True)
    class Ghosts(umbel.sample.Sampler):
        def draw(self, population: Any, *, round: int, rng: Any) -> tuple[str, ...]:
            return ("0", "ghost")

    server = umbel.ServerApp(MODEL, umbel.fed_avg(cohort=Ghosts()), 1)
    with pytest.raises(umbel.errors.UsageError, match=r"Ghosts\(\) drew 'ghost', who is none of the 3 clients"):
        run(make_client(), server=server)


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ({}, "q-FedAvg needs the metric 'loss', a loss >= 0, and got None"),
        ({"loss": -1.0}, r"got -1\.0"),
        ({"loss": [1.0]}, "q-FedAvg needs|shape"),
        ({"loss": 1e300}, "out of range"),
    ],
)
def test_what_an_aggregator_needs_beyond_arrays(metrics: dict[str, Any], says: str) -> None:
    client = umbel.ClientApp()

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        lawful = {"loss": 0.5 + int(ctx.client.name)}
        return good(model, ctx).replace(metrics=metrics if ctx.client.name == BAD else lawful)

    strategy = umbel.q_fed_avg(q=2.0, lr=0.1, rounds=umbel.rounds(quorum=0.6))
    server = umbel.ServerApp(MODEL, strategy, 2)
    result = run(client, server=server)
    assert {f.client for f in result.failures} == {BAD}
    assert re.search(says, result.failures[0].message)
    assert result.model == run(client, ["0", "2"], server=server).model


@pytest.mark.parametrize("aggregator", [umbel.aggregate.sum(), umbel.aggregate.mean()])
def test_bytes_are_joined_and_not_summed(aggregator: umbel.aggregate.Aggregator) -> None:
    client, server = umbel.ClientApp(), umbel.ServerApp()
    client.query("grow")(lambda model, ctx: umbel.Update(value={"n": 1, "tree": b"..."}))

    @server.main
    def main(fed: Any) -> None:
        fed.query("grow", cohort=ALL, aggregator=aggregator)

    with pytest.raises(QuorumMissed, match=r"client '0', query 'grow': entry 'tree' is bytes, .*\n.*aggregate\.concat"):
        run(client, server=server)


def test_when_no_client_can_evaluate_it_says_so_without_a_share() -> None:
    client = make_client()
    client.evaluate(raising(ValueError))
    with pytest.raises(
        QuorumMissed, match=r"evaluate: 0 of 3 clients answered before a single answer was out of reach"
    ):
        run(client, server=make_server(on_miss="stop"))


def test_values_that_do_not_fit_those_of_an_earlier_shard_fail_their_client_only() -> None:
    """The first client of the second group of 64 is compared with those of the first group, too."""
    client = umbel.ClientApp()

    @client.query("count")
    def count(model: Any, ctx: Any) -> umbel.Update:
        size = 3 if int(ctx.client.name) in (5, 64, 70, 128) else 2
        return umbel.Update(value={"n": np.ones(size)}, extra={"more": {"x": np.ones(size)}})

    server = umbel.ServerApp(rounds=1)

    @server.main
    def main(fed: Any) -> None:
        for aggregator in (umbel.aggregate.sum(), umbel.aggregate.concat()):
            got = fed.query(
                "count",
                cohort=umbel.sample.everyone(),
                aggregator=aggregator,
                policy=umbel.rounds(quorum=0.9),
                aggregators={"more": umbel.aggregate.sum()},
            )
            ill = {f.client for f in got.failures}
            assert ill == {"005", "064", "070", "128"}
            assert got.extra["more"]["x"].tolist() == [126, 126]
            fed.commit({})

    names = [f"{i:03}" for i in range(130)]
    assert umbel.run(server, client, on=umbel.Simulation(clients=names), seed=0).status == "finished"


# --- the server's side ---------------------------------------------------------------------------------------------


def test_zero_rounds() -> None:
    result = run(make_client(), rounds=0)
    assert (result.status, len(result.history), result.model) == ("finished", 0, umbel.Arrays(MODEL))
    with pytest.raises(umbel.UmbelError, match="no column 'loss'"):
        result.history["loss"]


def test_no_model_then_a_model_in_the_same_directory(tmp_path: Path) -> None:
    strategy = umbel.fed_avg()
    with pytest.raises(umbel.UmbelError, match="a strategy needs an initial model"):
        run(make_client(), server=umbel.ServerApp(None, strategy, 3), dir=tmp_path)
    assert run(make_client(), server=umbel.ServerApp(MODEL, strategy, 3), dir=tmp_path).status == "finished"
    with pytest.raises(umbel.errors.RecipeChanged, match="initial model"):
        run(make_client(), server=umbel.ServerApp({"w": np.ones(2)}, strategy, 3), dir=tmp_path)


@pytest.mark.parametrize("model", [{}, {"steps": 3}, {"names": np.zeros(2, bool)}, {"tree": b"bytes"}])
def test_a_model_in_which_nothing_is_trained(model: Any) -> None:
    with pytest.raises(umbel.UmbelError, match="nothing in the model is trained"):
        run(make_client(), server=umbel.ServerApp(model, umbel.fed_avg(), 1))


def test_a_model_that_is_none() -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(2, 1)
    for model, says in (
        (net, "is a Linear"),
        (lambda: net, "is a Linear"),
        (lambda: [1], "is a list"),
        (5, "is a int"),
    ):
        with pytest.raises(umbel.UmbelError, match=f"the initial model {says}"):
            run(make_client(), server=umbel.ServerApp(model, umbel.fed_avg(), 1))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: umbel.fed_avg(cohort=0.1), "cohort is a float"),
        (lambda: umbel.fed_avg(aggregator=umbel.aggregate.mean), "aggregator is a function"),
        (lambda: umbel.fed_avg(rounds=5), "rounds is a int"),
        (lambda: umbel.fed_avg(evaluate=5), "evaluate is a int"),
        (lambda: umbel.fed_avg(share="w"), "share is a str"),
        (lambda: umbel.fed_avg(optimizer=umbel.optimize.adam), "adam was not called"),
        (lambda: umbel.fed_avg(config={"lr": object()}), "config"),
        (lambda: umbel.fed_avg(metrics={"loss": 3}), "does not say how a metric is combined"),
        (lambda: umbel.fed_avg().with_(cohort=3), "cohort is a int"),
        (lambda: umbel.fed_avg().with_(bogus=3), "a strategy has no 'bogus'"),
        (lambda: umbel.fed_avg().with_("clip"), "no transform"),
        (lambda: umbel.fed_prox(mu=-1), "mu is -1"),
        (lambda: umbel.fed_prox(mu="0.1"), "mu is '0.1'"),
        (lambda: umbel.q_fed_avg(q=-1), r"q is -1\n.*number >= 0"),
        (lambda: umbel.q_fed_avg(q="1"), "q is '1'"),
        (lambda: umbel.q_fed_avg(lr=0), r"lr is 0\n.*number > 0"),
        (lambda: umbel.q_fed_avg(lr=float("inf")), "lr is inf"),
        (lambda: umbel.q_fed_avg(lr="0.1"), "lr is '0.1'"),
        (lambda: umbel.rounds(quorum=2), "quorum is 2"),
        (lambda: umbel.rounds(quorum="all"), "quorum is 'all'"),
        (lambda: umbel.rounds(wait=True), r"wait \(seconds\) is True"),
        (lambda: umbel.rounds(deadline="1h"), r"deadline \(seconds\) is '1h'"),
        (lambda: umbel.rounds(on_miss="panic"), "on_miss is 'panic'"),
        (lambda: umbel.evaluation(every=-1), "every"),
        (lambda: umbel.ServerApp(strategy=umbel.fed_avg), "strategy is a function"),
        (lambda: umbel.ServerApp(rounds=2.5), "rounds is 2.5"),
        (lambda: umbel.ServerApp().with_(lr=3), "no 'lr'"),
        (lambda: umbel.Simulation(clients=-1), "clients is -1"),
        (lambda: umbel.Simulation(clients=2.5), "clients is a float"),
        (lambda: umbel.Simulation(clients="berlin"), "clients is a str"),
        (lambda: umbel.Simulation(clients={"a", "b"}), "clients is a set"),
        (lambda: umbel.Simulation(clients=["a", "a"]), "two clients are called 'a'"),
        (lambda: umbel.Simulation(clients=["a", ""]), "a client is called ''"),
        (lambda: umbel.Simulation(clients=["\ud800"]), r"a client is called '\\ud800'"),
        (lambda: umbel.Simulation(clients=[1, 2]), "the part of client '0' is a int"),
        (lambda: umbel.Simulation(clients=[[0, 1], "ab"]), "the part of client '1' is a str"),
        (lambda: umbel.Simulation(clients=[[0.5]]), "the part of client '0' is a list, not an array of indexes"),
        (lambda: umbel.Simulation(clients={"a": 3}), "the settings of client 'a' are a int"),
        (lambda: umbel.Simulation(clients=3, labels={"9": {"a": "b"}}), "labels of '9'"),
        (lambda: umbel.Simulation(clients=3, labels={"0": "de"}), "the labels of client '0' are 'de'"),
        (lambda: umbel.Simulation(clients=3, workers=0), "workers is 0"),
        (lambda: umbel.Simulation(clients=3, threads=0), "threads is 0"),
        (lambda: umbel.Simulation(clients=3, engine="fast"), "no engine 'fast'"),
    ],
)
def test_an_argument_that_makes_no_sense(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(umbel.errors.UsageError, match=says):
        make()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"on": None}, "nobody says where to run"),
        ({"on": 5}, "on is a int"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"seed": True}, "seed is True"),
        ({"rounds": "3"}, "rounds is '3'"),
        ({"dir": ""}, "dir is ''"),
        ({"dir": 5}, "dir is 5"),
        ({"dir": "a\0b"}, r"dir is 'a\\x00b'\n.*without NUL"),
        ({"dir": Path("a\0b")}, r"dir is .*Path\('a\\x00b'\)\n.*without NUL"),
        ({"dir": "a\ud800b"}, r"dir is 'a\\ud800b'\n.*valid Unicode"),
        ({"callbacks": print}, "callbacks is a builtin_function_or_method"),
        ({"callbacks": [5]}, "callback 5 is a int"),
        ({"callbacks": [umbel.EarlyStopping]}, "callback EarlyStopping is a class"),
        ({"callbacks": [umbel.Checkpoint(), umbel.Checkpoint(every=2)]}, "2 Checkpoints"),
        ({"callbacks": [lambda: None]}, r"callbacks: <lambda>\(\) cannot be called with \(result\)"),
        ({"initial": 5}, "a model is"),
        ({"initial": "/nowhere/model.safetensors"}, r"the model '/nowhere/model.safetensors' cannot be read"),
        ({"initial": {"w": Colour()}}, "entry 'w'"),
    ],
)
def test_an_argument_of_run(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(umbel.UmbelError, match=says):
        umbel.run(make_server(), make_client(), **({"on": umbel.Simulation(clients=2), "seed": 1} | arguments))


def test_the_two_apps_in_the_wrong_order() -> None:
    with pytest.raises(umbel.UmbelError, match="the first argument is a ClientApp"):
        umbel.run(make_client(), make_server(), on=umbel.Simulation(clients=2))
    with pytest.raises(umbel.UmbelError, match="the second argument is a ServerApp"):
        umbel.run(make_server(), make_server(), on=umbel.Simulation(clients=2))


def test_fed_prox_is_not_quietly_fed_avg(tmp_path: Path) -> None:
    server = umbel.ServerApp(MODEL, umbel.fed_prox(mu=0.1), 2)
    with pytest.raises(QuorumMissed, match=r"(?s)did not apply it.*umbel\.torch\.local"):
        run(make_client(), server=server, dir=tmp_path)

    def corrected(model: Any, ctx: Any) -> umbel.Update:
        assert ctx.correction.pull == 0.1
        return good(model, ctx)

    client = umbel.ClientApp()
    client.train(corrected)
    assert run(client, server=server, dir=tmp_path).status == "finished"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda fed: fed.train(None, cohort=ALL), "fed.train needs a model"),
        (lambda fed: fed.train([1], cohort=ALL), "the model is a list"),
        (lambda fed: fed.train(MODEL, cohort=0.5), "cohort is a float"),
        (lambda fed: fed.train(MODEL, cohort=None), "cohort is a NoneType.*\n.*umbel.sample.fraction"),
        (lambda fed: fed.train(MODEL, cohort=ALL, extra=np.ones(3)), "extra is a ndarray"),
        (lambda fed: fed.train(MODEL, cohort=ALL, extra=umbel.Arrays(MODEL)), "extra is a Arrays"),
        (lambda fed: umbel.aggregate.split(umbel.Arrays(MODEL), "w"), "no joined entry 'w'\n.*the result of concat"),
        (lambda fed: fed.commit({}, metrics=[1]), "metrics is a list"),
        (lambda fed: fed.train(MODEL, cohort=ALL, aggregator=umbel.aggregate.mean), "aggregator is a function"),
        (lambda fed: fed.train(MODEL, cohort=ALL, aggregators=[1]), "aggregators is a list"),
        (lambda fed: fed.train(MODEL, cohort=ALL, policy=3), "policy is a int"),
        (lambda fed: fed.train(MODEL, cohort=ALL, local=0.1), "local is a float"),
        (lambda fed: fed.train(MODEL, cohort=ALL, metrics=[1]), "metrics is a list"),
        (lambda fed: fed.train(MODEL, cohort=ALL, config=[1]), "config is a list"),
        (lambda fed: fed.train(MODEL, cohort=ALL, extra={"c": 1}), r"extra\['c'\] is a int"),
        (lambda fed: fed.train(MODEL, cohort=ALL, transforms=umbel.transforms.clip(1)), "transforms is a Clip"),
        (lambda fed: fed.train(MODEL, cohort=ALL, transforms=[3]), "3 is no transform"),
        (lambda fed: fed.evaluate(MODEL, cohort=ALL), "no handler for 'evaluate'"),
        (lambda fed: fed.query("count", cohort=ALL), "no handler for 'count'"),
        (lambda fed: fed.query("train", MODEL, cohort=ALL), "no handler for 'train'"),
        (lambda fed: list(fed.rounds(2.5)), "rounds.* is 2.5"),
        (lambda fed: list(fed.rounds()), "nobody says how many rounds"),
        (lambda fed: fed.train(MODEL, cohort=ALL).sum, "aggregated to a mean, not a sum"),
    ],
)
def test_what_a_main_asks_for(call: Callable[[Any], Any], says: str) -> None:
    server = umbel.ServerApp()

    @server.main
    def main(fed: Any) -> None:
        call(fed)

    with pytest.raises(umbel.errors.UsageError, match=says):
        run(make_client(), server=server)


def test_a_main_that_breaks_loses_no_committed_round(tmp_path: Path) -> None:
    def make(ill: bool, error: BaseException) -> umbel.ServerApp:
        server = umbel.ServerApp(model=MODEL)

        @server.main
        def main(fed: Any) -> None:
            state = fed.state or {"model": fed.initial, "sum": 0.0}
            for r in fed.rounds(4):
                got = fed.train(state["model"], cohort=ALL)
                if ill and r == 3:
                    raise error
                state = {"model": state["model"] + got.mean, "sum": state["sum"] + got.metrics["loss"]}
                fed.commit(state, metrics=got.metrics)

        return server

    whole = run(make_client(), server=make(False, ValueError()))
    for error in (ZeroDivisionError("mine"), SystemExit(3), Strange()):
        folder = tmp_path / type(error).__name__
        with pytest.raises(type(error)):
            run(make_client(), server=make(True, error), dir=folder, callbacks=[umbel.Checkpoint(every=10)])
        again = run(make_client(), server=make(False, error), dir=folder)
        assert again.model == whole.model
        assert again.history == whole.history
        assert again.state["sum"] == whole.state["sum"]


def test_a_commit_that_cannot_be_kept_says_what_in_it(tmp_path: Path) -> None:
    server = umbel.ServerApp(model=MODEL, rounds=1)

    @server.main
    def main(fed: Any) -> None:
        for _ in fed.rounds():
            fed.commit({"model": fed.initial, "helpers": {"net": Colour()}})

    with pytest.raises(umbel.errors.UsageError, match=r"\['helpers'\]\['net'\] is a Colour"):
        run(make_client(), server=server, dir=tmp_path)


# --- names and numbers ---------------------------------------------------------------------------------------------

NAMES = [
    "",
    " ",
    "a/b\\c",
    "../../etc/passwd",
    "naïve 😀 名前",
    "a\nb\tc\x00d\x1b[31m",
    "x" * 10_000,
    "'\"; DROP TABLE",
]


@pytest.mark.parametrize("durable", [False, True])
def test_strange_names(durable: bool, tmp_path: Path) -> None:
    names = NAMES[1:]
    client = umbel.ClientApp()

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        ctx.state[ctx.client.name] = ctx.client.name
        ctx.state["$class"] = ctx.state.get("$class", 0) + 1
        metrics = {f"{n:.20}": 1.0 for n in names if f"{n:.20}".isprintable()}  # others are refused
        return umbel.Update(model={n: model[n] + 1 for n in model}, metrics=metrics)

    server = umbel.ServerApp({n: np.zeros(2) for n in names}, umbel.fed_avg(), 2)
    folder = {"dir": tmp_path / "run"} if durable else {}
    result = umbel.run(server, client, on=umbel.Simulation(clients=names), seed=1, name="[/b] x\ny", **folder)
    assert list(result.model) == names
    assert set(result.clients) == set(names)
    assert {c.counted for c in result.clients.values()} == {2}
    result.history.save(tmp_path / "history.csv")
    assert len(repr(result)) < 2000
    if durable:
        again = umbel.run(server, client, on=umbel.Simulation(clients=names), seed=1, dir=tmp_path / "run", rounds=3)
        assert again.model is not None
        assert again.model[names[0]].tolist() == [3.0, 3.0]


def test_a_hundred_thousand_clients() -> None:
    def work(clients: int) -> tuple[umbel.Result, int]:
        done = []
        client = umbel.ClientApp()

        @client.train
        def train(model: Any, ctx: Any) -> umbel.Update:
            done.append(ctx.client.name)
            return good(model, ctx)

        strategy = umbel.fed_avg(cohort=umbel.sample.count(10), rounds=umbel.rounds(spare=2))
        server = umbel.ServerApp(MODEL, strategy, 3)
        return umbel.run(server, client, on=umbel.Simulation(clients=clients), seed=1), len(done)

    result, trained = work(100_000)
    assert trained == 30
    assert len(result.clients) == 30, "who took no part costs nothing"


def test_a_failure_is_a_value_that_can_be_written_down() -> None:
    result = run(make_client(raising(Unprintable)), server=make_server(quorum=0.5))
    (failure,) = result.failures
    assert isinstance(failure, Failure)
    assert (
        failure.traceback.splitlines()[-1].startswith("test_bad_input.Unprintable")
        or "Unprintable" in failure.traceback
    )
    assert "traceback" not in repr(failure)

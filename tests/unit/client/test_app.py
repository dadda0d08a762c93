# ruff: noqa: ARG002, ARG005  # handlers take what they are given
# mypy: disable-error-code="arg-type, misc"
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

import umbel
from umbel.errors import UsageError


async def asynchronous(model: Any, ctx: Any) -> None: ...


async def asynchronous_generator(model: Any, ctx: Any) -> Any:
    yield model


def generator(model: Any, ctx: Any) -> Any:
    yield model


class Awaited:
    async def __call__(self, model: Any, ctx: Any) -> None: ...


class Handler:
    def __call__(self, model: Any, ctx: Any) -> str:
        return "called"

    def method(self, model: Any, ctx: Any) -> str:
        return "called"


WRONG: dict[str, tuple[Any, str]] = {
    "no ctx": (lambda model: None, r"<lambda>\(model\) cannot be called with \(model, ctx\)"),
    "too many": (lambda model, ctx, data: None, r"cannot be called with \(model, ctx\)"),
    "keywords": (lambda *, model, ctx: None, r"cannot be called with \(model, ctx\)"),
    "async def": (asynchronous, r"asynchronous is asynchronous \(async def\): nobody would await it"),
    "an async generator": (asynchronous_generator, "is asynchronous"),
    "an async __call__": (Awaited(), "Awaited is asynchronous"),
    "a partial of async": (functools.partial(asynchronous, None), "is asynchronous"),
    "a generator": (generator, r"generator is a generator \(it has a yield\)"),
    "a number": (3, "stands in front of a int"),
    "a string": ("train", "stands in front of a str"),
    "a class": (Handler, "stands in front of the class Handler"),
}
DECORATORS: dict[str, Callable[[umbel.ClientApp], Callable[[Any], Any]]] = {
    "train": lambda app: app.train,
    "evaluate": lambda app: app.evaluate,
    "query('count')": lambda app: app.query("count"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("decorator", DECORATORS)
def test_what_cannot_be_a_handler_is_refused_where_it_is_written(decorator: str, wrong: str) -> None:
    handler, says = WRONG[wrong]
    app = umbel.ClientApp()
    with pytest.raises(UsageError, match=says) as caught:
        DECORATORS[decorator](app)(handler)
    assert str(caught.value).startswith(f"@client.{decorator}")
    assert "What to do" in str(caught.value)
    assert app.names() == frozenset()


@pytest.mark.parametrize("kind", ["setup", "data"])
def test_setup_and_data_take_the_context_alone(kind: str) -> None:
    app = umbel.ClientApp()
    for wrong in (lambda: 1, lambda model, ctx: 1, generator, asynchronous):
        with pytest.raises(UsageError, match=rf"@client\.{kind}"):
            getattr(app, kind)(wrong)
    getattr(app, kind)(lambda ctx: 1)


def test_middleware_takes_the_call_too() -> None:
    app = umbel.ClientApp()
    with pytest.raises(
        UsageError, match=r"@client\.use: <lambda>\(model, ctx\) cannot be called with \(model, ctx, call"
    ):
        app.use(lambda model, ctx: None)
    app.use(lambda model, ctx, call: call(model, ctx))


@pytest.mark.parametrize(
    "handler", [Handler(), Handler().method, functools.partial(Handler().method), lambda *a: "called", lambda m, c=1: m]
)
def test_whatever_can_be_called_like_it_is_a_handler(handler: Any) -> None:
    app = umbel.ClientApp()
    assert app.train(handler) is handler
    assert app.handler("train")("called", None) == "called"


def test_a_second_handler_for_the_same_is_refused() -> None:
    app = umbel.ClientApp()
    app.train(functools.partial(generator_free, scale=2))
    with pytest.raises(UsageError, match="already has a handler for 'train': partial"):
        app.train(generator_free)
    app.query("count")(generator_free)
    with pytest.raises(UsageError, match="already has a handler for 'count': generator_free"):
        app.query("count")(generator_free)


def generator_free(model: Any, ctx: Any, scale: int = 1) -> Any:
    return model


@pytest.mark.parametrize("name", ["", "train", "evaluate", 3, None, generator_free])
def test_a_query_has_a_name_of_its_own(name: Any) -> None:
    with pytest.raises(UsageError, match="a query cannot be called"):
        umbel.ClientApp().query(name)


def test_middleware_is_nested_the_first_outermost() -> None:
    app, order = umbel.ClientApp(), []

    def layer(name: str) -> Callable[[Any, Any, Any], Any]:
        def around(model: Any, ctx: Any, call: Any) -> Any:
            order.append(f"{name} in")
            answer = call(model + 1, ctx)
            order.append(f"{name} out")
            return answer * 2

        return around

    app.use(layer("outer"))
    app.use(layer("inner"))
    app.train(lambda model, ctx: model)
    app.query("q")(lambda model, ctx: -model)
    assert app.handler("train")(1, None) == 12
    assert app.handler("q")(1, None) == -12
    assert order[:4] == ["outer in", "inner in", "inner out", "outer out"]
    assert app.names() == {"train", "q"}
    assert repr(app) == "ClientApp(train, query 'q')"


def test_the_server_app_refuses_the_same() -> None:
    server = umbel.ServerApp()
    with pytest.raises(UsageError, match=r"@server\.main: asynchronous is asynchronous|cannot be called with \(fed\)"):
        server.main(asynchronous)
    with pytest.raises(UsageError, match=r"@server\.main: <lambda>\(\) cannot be called with \(fed\)"):
        server.main(lambda: None)
    with pytest.raises(UsageError, match=r"@server\.evaluate: generator is a generator"):
        server.evaluate(every=2)(generator)
    with pytest.raises(UsageError, match=r"@server\.evaluate: every is 0"):
        server.evaluate(every=0)
    assert server.loop is None
    assert server.tests == []


def test_a_central_evaluation_is_registered_with_and_without_arguments() -> None:
    server = umbel.ServerApp()
    server.evaluate(generator_free)
    server.evaluate(every=5)(generator_free)
    assert [t.every for t in server.tests] == [1, 5]


def test_a_server_app_has_a_strategy_or_a_main() -> None:
    with pytest.raises(UsageError, match="already has a strategy"):
        umbel.ServerApp(strategy=umbel.fed_avg()).main(lambda fed: None)
    server = umbel.ServerApp()
    server.main(lambda fed: None)
    with pytest.raises(UsageError, match="already has a main"):
        server.main(lambda fed: None)
    with pytest.raises(UsageError, match="this app has a main"):
        server.with_(strategy=umbel.fed_avg())
    assert server.with_(rounds=3).loop is server.loop


def test_numpys_whole_numbers_are_whole_numbers() -> None:
    import numpy as np

    assert umbel.ServerApp(rounds=np.int64(3)).rounds == 3

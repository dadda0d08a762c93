"""`ClientApp`: what runs where the data is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, final

from umbel.engine.handlers import check_handler, name_of
from umbel.errors import UsageError

Handler = Callable[..., Any]
F = TypeVar("F", bound=Handler)
Middleware = Callable[[Any, Any, Handler], Any]
_ONCE = ("ctx",)
_TASK = ("model", "ctx")
_AROUND = ("model", "ctx", "call")


@final
class ClientApp:
    """The client's handlers.

    Each is a function that a decorator registers:

        @client.setup                 (ctx) -> what is dear and the same for all clients; ctx.shared
        @client.data                  (ctx) -> the client's data; ctx.data
        @client.train                 (model, ctx) -> umbel.Update
        @client.evaluate              (model, ctx) -> umbel.Metrics
        @client.query("name")         (model, ctx) -> umbel.Update(value=...)
        @client.use                   (model, ctx, call) -> what call(model, ctx) returned, perhaps changed

    Middleware runs around every train, evaluate and query, the first registered outermost.

    A decorator refuses with a `umbel.errors.UsageError` what cannot be its handler: other arguments, ``async def``,
    a generator, a second function for the same.
    """

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.queries: dict[str, Handler] = {}
        self.middleware: list[Middleware] = []

    def setup(self, function: F) -> F:
        """Register what is done once per process; its result is ``ctx.shared``.

        One that reads ``ctx.site`` is done once for each different site.
        """
        return self._register("setup", function, _ONCE)

    def data(self, function: F) -> F:
        """Register what loads one client's data; its result is ``ctx.data``, cached, and never leaves the node."""
        return self._register("data", function, _ONCE)

    def train(self, function: F) -> F:
        """Register local training: ``(model, ctx) -> Update``."""
        return self._register("train", function, _TASK)

    def evaluate(self, function: F) -> F:
        """Register local evaluation: ``(model, ctx) -> Metrics``."""
        return self._register("evaluate", function, _TASK)

    def query(self, name: str) -> Callable[[F], F]:
        """Register a named query: ``(model, ctx) -> Update(value=...)``; ``model`` may be None."""
        if not isinstance(name, str) or not name or name in ("train", "evaluate"):
            raise UsageError(f"a query cannot be called {name!r}", advice='write @client.query("some name")')

        def register(function: F) -> F:
            check_handler(f"@client.query({name!r})", function, _TASK)
            _check_new(self.queries, name)
            self.queries[name] = function
            return function

        return register

    def use(self, function: F) -> F:
        """Register middleware: ``(model, ctx, call)``, around every train, evaluate and query."""
        check_handler("@client.use", function, _AROUND)
        self.middleware.append(function)
        return function

    def names(self) -> frozenset[str]:
        """What this app can be asked: "train", "evaluate", and the names of its queries."""
        return frozenset(self.queries) | (frozenset(self.handlers) & {"train", "evaluate"})

    def handler(self, name: str) -> Handler:
        """The handler of train, evaluate or a query, inside its middleware."""
        call = self.queries.get(name) or self.handlers[name]
        for layer in reversed(self.middleware):
            call = _wrap(layer, call)
        return call

    def _register(self, name: str, function: F, arguments: tuple[str, ...]) -> F:
        check_handler(f"@client.{name}", function, arguments)
        _check_new(self.handlers, name)
        self.handlers[name] = function
        return function

    def __repr__(self) -> str:
        return f"ClientApp({', '.join([*self.handlers, *(f'query {q!r}' for q in self.queries)])})"


def _wrap(layer: Middleware, call: Handler) -> Handler:
    return lambda model, ctx: layer(model, ctx, call)


def _check_new(where: dict[str, Handler], name: str) -> None:
    if name in where:
        raise UsageError(
            f"this app already has a handler for {name!r}: {name_of(where[name])}",
            advice="make another umbel.ClientApp(), or remove one of the two",
        )


__all__ = ["ClientApp", "Handler"]

"""`ServerApp`: what runs where the server is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar, final, overload

from umbel.arguments import whole
from umbel.arrays import Arrays
from umbel.engine.federation import Federation
from umbel.engine.handlers import check_handler
from umbel.errors import UsageError
from umbel.strategies.base import Strategy

Main = Callable[[Federation], object]
F = TypeVar("F", bound=Callable[..., Any])


@final
@dataclass(frozen=True, slots=True)
class CentralTest:
    """An evaluation where the server is, after each so many rounds."""

    function: Callable[[Arrays, Any], Any]
    every: int


@final
class ServerApp:
    """The server's side of a federation: a strategy, or a main of your own.

    Args:
        model: the initial model: `Arrays`, a mapping of names to arrays, or a function that makes one of these.
        strategy: what is done with it; see `umbel.fed_avg` and its kin.
        rounds: how many rounds.

    A main of your own is registered with ``@server.main`` and takes the strategy's place.
    ``@server.evaluate(every=5)`` registers a central evaluation ``(model, ctx) -> Metrics``.
    """

    def __init__(
        self,
        model: Arrays | Mapping[str, Any] | Callable[[], Arrays | Mapping[str, Any]] | None = None,
        strategy: Strategy | None = None,
        rounds: int | None = None,
    ) -> None:
        if strategy is not None and not isinstance(strategy, Strategy):
            raise UsageError(f"strategy is a {type(strategy).__name__}", advice="give umbel.fed_avg(...) or its kin")
        self.model, self.strategy, self.rounds = (
            model,
            strategy,
            None if rounds is None else whole(rounds, "rounds", least=0),
        )
        self.loop: Main | None = None
        self.tests: list[CentralTest] = []

    def main(self, function: Main) -> Main:
        """Register the server's loop: ``(fed) -> None``.

        Raises:
            UsageError: there is a strategy or a main already, or the function cannot be one.
        """
        check_handler("@server.main", function, ("fed",))
        if self.loop is not None or self.strategy is not None:
            raise UsageError(
                "this app already has a " + ("main" if self.loop is not None else "strategy"),
                advice="a server runs either a strategy or a main of your own",
            )
        self.loop = function
        return function

    @overload
    def evaluate(self, function: F, /) -> F: ...
    @overload
    def evaluate(self, *, every: int = 1) -> Callable[[F], F]: ...
    def evaluate(self, function: Any = None, *, every: int = 1) -> Any:
        """Register a central evaluation: ``(model, ctx) -> Metrics``, after each round or after each so many.

        Raises:
            UsageError: ``every`` is no whole number >= 1, or the function cannot be an evaluation.
        """
        every = whole(every, "@server.evaluate: every")

        def register(function: F) -> F:
            check_handler("@server.evaluate", function, ("model", "ctx"))
            self.tests.append(CentralTest(function, every))
            return function

        return register if function is None else register(function)

    def with_(self, **changes: Any) -> Self:
        """A copy with another model, strategy or number of rounds."""
        unknown = changes.keys() - {"model", "strategy", "rounds"}
        if unknown:
            raise UsageError(f"ServerApp has no {sorted(unknown)[0]!r}", advice="change model, strategy or rounds")
        if changes.get("strategy") is not None and self.loop is not None:
            raise UsageError("this app has a main", advice="a server runs either a strategy or a main of your own")
        made = type(self)(**({"model": self.model, "strategy": self.strategy, "rounds": self.rounds} | changes))
        made.loop, made.tests = self.loop, list(self.tests)
        return made

    def initial_model(self) -> Arrays | None:
        """The model at the start.

        Raises:
            UsageError: what was given, or what the function made, is no model.
        """
        # a network can be called, too, but makes no model
        made = self.model() if callable(self.model) and not hasattr(self.model, "state_dict") else self.model
        if made is None or isinstance(made, Arrays):
            return made.canonical() if made is not None else None
        if not isinstance(made, Mapping):
            raise UsageError(
                f"the initial model is a {type(made).__name__}",
                advice="give a mapping of names to arrays, or umbel.torch.arrays(net)",
            )
        tensor = next((name for name, value in made.items() if type(value).__module__.startswith("torch")), None)
        if tensor is not None:
            raise UsageError(
                f"the initial model's entry {tensor!r} is a tensor: is it trained, or a statistic?",
                advice="give model=lambda: umbel.torch.arrays(net)",
            )
        return Arrays(made)


__all__ = ["CentralTest", "Main", "ServerApp"]

"""`ServerApp`: what runs where the server is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar, final

from umbel.arrays import Arrays
from umbel.engine.federation import Federation
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
        if rounds is not None and (type(rounds) is not int or rounds < 0):
            raise UsageError(f"rounds is {rounds!r}", advice="give a whole number >= 0")
        self.model, self.strategy, self.rounds = model, strategy, rounds
        self.loop: Main | None = None
        self.tests: list[CentralTest] = []

    def main(self, function: Main) -> Main:
        """Register the server's loop: ``(fed) -> None``."""
        if self.loop is not None or self.strategy is not None:
            raise UsageError(
                "this app already has a " + ("main" if self.loop is not None else "strategy"),
                advice="a server runs either a strategy or a main of your own",
            )
        self.loop = function
        return function

    def evaluate(self, *, every: int = 1) -> Callable[[F], F]:
        """Register a central evaluation: ``(model, ctx) -> Metrics``, after each so many rounds."""
        if type(every) is not int or every < 1:
            raise UsageError(
                f"@server.evaluate: every is {every!r}", advice="write @server.evaluate(every=5), a number >= 1"
            )

        def register(function: F) -> F:
            self.tests.append(CentralTest(function, every))
            return function

        return register

    def with_(self, **changes: Any) -> Self:
        """A copy with another model, strategy or number of rounds."""
        unknown = changes.keys() - {"model", "strategy", "rounds"}
        if unknown:
            raise UsageError(f"ServerApp has no {sorted(unknown)[0]!r}", advice="change model, strategy or rounds")
        made = type(self)(**({"model": self.model, "strategy": self.strategy, "rounds": self.rounds} | changes))
        made.loop, made.tests = self.loop, list(self.tests)
        return made

    def initial_model(self) -> Arrays | None:
        """The model at the start."""
        made = self.model() if callable(self.model) else self.model
        if made is None or isinstance(made, Arrays):
            return made.canonical() if made is not None else None
        if not isinstance(made, Mapping):
            raise UsageError(
                f"the initial model is a {type(made).__name__}",
                advice="give a mapping of names to arrays, or umbel.torch.arrays(net)",
            )
        return Arrays(made)


__all__ = ["CentralTest", "Main", "ServerApp"]

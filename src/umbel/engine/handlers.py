"""What may stand behind a decorator: a plain function of the right arguments; refused where it is written."""

from __future__ import annotations

import inspect
from typing import Any

from umbel.errors import UsageError


def check_handler(decorator: str, function: Any, arguments: tuple[str, ...]) -> None:
    """Refuse what could not be called as a handler, or would not do its work when called.

    Args:
        decorator: what stands in front of it, for example "@client.train".
        function: what it stands in front of.
        arguments: what the handler is called with, by position.

    Raises:
        UsageError: it cannot be called, not with these arguments, or is asynchronous or a generator.
    """
    wanted = f"({', '.join(arguments)})"
    if isinstance(function, type) or not callable(function):
        kind = f"the class {function.__name__}" if isinstance(function, type) else f"a {type(function).__name__}"
        raise UsageError(
            f"{decorator} stands in front of {kind}", advice=f"put it in front of a function {wanted}, without () or []"
        )
    _check_kind(decorator, function, wanted)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some built-in functions do not tell
    try:
        signature.bind(*arguments)
    except TypeError:
        raise UsageError(
            f"{decorator}: {name_of(function)}{signature} cannot be called with {wanted}",
            advice=f"write def {name_of(function)}{wanted}:",
        ) from None


def _check_kind(decorator: str, function: Any, wanted: str) -> None:
    for code in (function, type(function).__call__):
        what = (
            "is asynchronous (async def): nobody would await it"
            if inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code)
            else "is a generator (it has a yield): nothing in it would run"
            if inspect.isgeneratorfunction(code)
            else ""
        )
        if what:
            raise UsageError(
                f"{decorator}: {name_of(function)} {what}",
                advice=f"write a plain function {wanted} that returns its result; inside it, asyncio.run(...) may "
                "run what is asynchronous",
            )


def name_of(function: Any) -> str:
    """What a handler is called."""
    return str(getattr(function, "__name__", None) or type(function).__name__)


__all__ = ["check_handler", "name_of"]

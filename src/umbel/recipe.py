"""The recipe of a run: everything its result depends on, written down so that a directory knows its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import Any

from umbel.arrays import Arrays
from umbel.client.app import ClientApp
from umbel.codec import Json, describe
from umbel.engine.app import ServerApp
from umbel.version import __version__

FORMAT = 1


def write_recipe(
    server: ServerApp,
    client: ClientApp,
    place: Mapping[str, Any],
    *,
    seed: int,
    rounds: int | None,
    initial: Arrays | None,
) -> Json:
    """The recipe as JSON. ``rounds`` may grow later; ``code`` and ``umbel`` are for information."""
    return {
        "format": FORMAT,
        "umbel": __version__,
        "rounds": rounds,
        "code": _code(server, client),
        "recipe": {
            "seed": seed,
            "strategy": describe(server.strategy),
            "central evaluations": [f"{t.function.__qualname__} every {t.every}" for t in server.tests],
            "handlers": sorted([*client.handlers, *client.queries]),
            "initial model": _initial(initial),
            **place,
        },
    }


def _initial(model: Arrays | None) -> Json:
    if model is None:
        return None
    entries = {e.name: e.describe() for e in model.spec.entries}
    return {"entries": entries, "digest": model.digest()}


def differences(before: Json, now: Json) -> list[str]:
    """One line per difference between two recipes: where, before, now."""
    return list(_differences(before["recipe"], now["recipe"], ""))


def _differences(before: Any, now: Any, where: str) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys((*before, *now)):
            yield from _differences(before.get(key), now.get(key), f"{where}.{key}" if where else str(key))
    elif _plain(before) != _plain(now):
        yield f"{where}: {before!r} before, {now!r} now"


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def changed_code(before: Json, now: Json) -> list[str]:
    """The handlers whose code is not what it was."""
    old, new = before["code"], now["code"]
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def _code(server: ServerApp, client: ClientApp) -> dict[str, str]:
    functions = {f"client.{name}": f for name, f in client.handlers.items()}
    functions |= {f"client.query({name!r})": f for name, f in client.queries.items()}
    functions |= {f"client.use {i}": f for i, f in enumerate(client.middleware)}
    functions |= {f"server.evaluate {i}": t.function for i, t in enumerate(server.tests)}
    if server.loop is not None:
        functions["server.main"] = server.loop
    return {name: _digest_of(function) for name, function in functions.items()}


def _digest_of(function: Any) -> str:
    code = getattr(function, "__code__", None)
    text = repr(_shape(code)) if code is not None else type(function).__qualname__
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _shape(code: CodeType) -> tuple[Any, ...]:
    """What a function does, without where it stands in its file."""
    constants = tuple(_shape(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts)
    return code.co_code, code.co_names, code.co_varnames, constants


__all__ = ["changed_code", "differences", "write_recipe"]

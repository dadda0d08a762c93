"""The recipe of a run: everything its result depends on, written down so that a directory knows its own.

A recipe is the same in every process: no addresses, no order of hashes, no absolute paths of our own. The code of
handlers is no part of it, for a program that failed may be mended and go on; but digests of it stand beside it.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import json
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any, final

from umbel.arrays import Arrays
from umbel.client.app import ClientApp
from umbel.client.declared import Declared, Steps
from umbel.codec import MOST_BITS, Json, describe, name_of
from umbel.engine.app import ServerApp
from umbel.engine.checkpoint import Checkpoint, mode_of
from umbel.version import __version__

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def write_recipe(
    server: ServerApp,
    client: ClientApp,
    place: Mapping[str, Any],
    *,
    seed: int,
    rounds: int | None,
    initial: Arrays | None,
    given: bool = False,
    checkpoint: Checkpoint | None = None,
) -> Json:
    """The recipe as JSON. ``rounds`` may grow later; what stands beside ``recipe`` is for information.

    Args:
        server: the server app.
        client: the client app.
        place: where it runs: clients and threads.
        seed: of the run.
        rounds: how many, if that is known.
        initial: the initial model.
        given: was it given to ``umbel.run``, and not made by the server app?
        checkpoint: what is kept of the run.
    """
    return {
        "umbel": __version__,
        "python": _python(),
        "rounds": rounds,
        "initial model given": given,
        "code": _code(server, client),
        "recipe": {
            "seed": seed,
            "strategy": describe(server.strategy),
            "central evaluations": [f"{_short(t.function)} every {t.every}" for t in server.tests],
            "handlers": sorted([*client.handlers, *client.queries]),
            "initial model": _initial(initial),
            "best model": _best(checkpoint or Checkpoint()),
            **place,
        },
    }


def _initial(model: Arrays | None) -> Json:
    if model is None:
        return None
    entries = {e.name: e.describe() for e in model.spec.entries}
    return {"entries": entries, "digest": model.digest()}


def _best(checkpoint: Checkpoint) -> Json:
    if checkpoint.best_on is None:
        return None
    return {"on": checkpoint.best_on, "mode": mode_of(checkpoint.best_on, checkpoint.mode)}


def differences(before: Json, now: Json) -> list[str]:
    """One line per difference between two recipes: where, before, now."""
    return list(_differences(before["recipe"], now["recipe"], ""))


def _differences(before: Any, now: Any, where: str) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys((*before, *now)):
            yield from _differences(before.get(key), now.get(key), f"{where}.{key}" if where else str(key))
    elif json.dumps(before, sort_keys=True) != json.dumps(now, sort_keys=True):
        yield f"{where}: {before!r} before, {now!r} now"


# --- code ----------------------------------------------------------------------------------------


def changed_code(before: Json, now: Json) -> list[str]:
    """The functions whose code is not what it was; none where another Python compiled them."""
    if before["python"] != now["python"]:
        return []
    old, new = before["code"], now["code"]
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def _python() -> str:
    return f"{sys.implementation.name} {sys.version_info.major}.{sys.version_info.minor}"


def _code(server: ServerApp, client: ClientApp) -> dict[str, str]:
    functions = {f"client.{name}": f for name, f in client.handlers.items()}
    functions |= {f"client.query({name!r})": f for name, f in client.queries.items()}
    functions |= {f"client.use {i}": f for i, f in enumerate(client.middleware)}
    functions |= {f"server.evaluate {i}": t.function for i, t in enumerate(server.tests)}
    functions |= dict(_functions_in(server.strategy, "strategy"))
    if server.loop is not None:
        functions["server.main"] = server.loop
    return {name: code_digest(function) for name, function in functions.items()}


def _functions_in(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """The user's own functions, and objects of the user's own classes, in a strategy."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _functions_in(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _functions_in(item, f"{where}[{i}]")
    elif _is_own(type(value)) or callable(value):
        yield where, value
    elif is_dataclass(value):
        for f in fields(value):
            yield from _functions_in(getattr(value, f.name), f"{where}.{f.name}")


def code_digest(function: Any) -> str:
    """A digest of what a function does: its code, and that of the user's functions and classes that it calls.

    Of what else it refers to, constants count: numbers and text in closures, defaults, global names and the fields of
    objects. Names that the code itself assigns do not, for their values depend on when one looks.
    """
    return hashlib.sha256(json.dumps(_Reader().read(function)).encode()).hexdigest()[:16]


@final
class _Reader:
    """Reads one function and what it refers to; what is met again stands as its name."""

    def __init__(self) -> None:
        self._seen: dict[int, Any] = {}  # by id; the value keeps the object alive

    def read(self, value: Any) -> Json:
        if isinstance(value, functools.partial):
            return ["partial", self.read(value.func), self._used(value.args), self._by_name(value.keywords)]
        if isinstance(value, MethodType):
            return ["method", self.read(value.__func__), self.read(value.__self__)]
        if isinstance(value, Steps):
            return repr(value)
        if isinstance(value, Declared) and is_dataclass(value):
            given = {f.name: getattr(value, f.name) for f in fields(value)}
            return ["declared", name_of(value), self._by_name(given)]
        value = getattr(value, "__wrapped__", value) if not isinstance(value, FunctionType) else value
        if isinstance(value, BuiltinFunctionType) or not _is_own(value if _has_code(value) else type(value)):
            return name_of(value)
        if id(value) in self._seen:
            return ["again", name_of(value)]
        self._seen[id(value)] = value
        if isinstance(value, FunctionType):
            return self._function(value)
        return self._class(value) if isinstance(value, type) else self._object(value)

    def _function(self, function: FunctionType) -> Json:
        code = function.__code__
        cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        assigned = _assigned(code, "STORE_DEREF", "STORE_GLOBAL")
        used = {name: cell.cell_contents for name, cell in cells.items() if _is_set(cell)}
        used |= {name: function.__globals__[name] for name in _names(code) if name in function.__globals__}
        return [
            "function",
            _shape(code, function.__doc__),
            self._used(function.__defaults__),
            self._by_name(function.__kwdefaults__ or {}),
            self._by_name({name: part for name, part in used.items() if name not in assigned}),
        ]

    def _by_name(self, parts: Mapping[str, Any]) -> Json:
        return {name: self._used(parts[name]) for name in sorted(parts)}

    def _used(self, value: Any) -> Json:
        """Code, or constants: numbers, text and tuples of these. Of what may change the name of its class."""
        if _has_code(value) or _is_own(type(value)) or isinstance(value, Steps):
            return self.read(value)
        if type(value) is tuple:
            return [self._used(part) for part in value]
        return _plain(value) if type(value) in _PLAIN else name_of(value)

    def _class(self, kind: type) -> Json:
        parts = {
            name: self._used(getattr(part, "__func__", getattr(part, "fget", part)))
            for name, part in sorted(vars(kind).items())
            if not (name.startswith("__") and not callable(part))
        }
        return ["class", [self.read(base) for base in kind.__bases__], parts]

    def _object(self, value: Any) -> Json:
        """An object: its class, and the constants that its making gave it."""
        made, later = set[str](), set[str]()
        for kind in type(value).__mro__:
            for name, part in vars(kind).items() if _is_own(kind) else ():
                if isinstance(part, FunctionType):
                    target = made if name in ("__init__", "__post_init__") else later
                    target |= _assigned(part.__code__, "STORE_ATTR")
        if is_dataclass(value):
            made |= {f.name for f in fields(value)}
        there = getattr(value, "__dict__", made)  # what __getattr__ makes up is not there
        given = {name: getattr(value, name) for name in made - later if name in there and hasattr(value, name)}
        return ["object", self.read(type(value)), self._by_name(given)]


def _has_code(value: Any) -> bool:
    return isinstance(value, FunctionType | MethodType | functools.partial | type)


def _is_own(value: Any) -> bool:
    """Does a function or class belong to the user's program, and not to what is installed?"""
    module = str(getattr(value, "__module__", "builtins"))
    file = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" or file is None:
        return module == "__main__"
    return module.partition(".")[0] != "umbel" and not any(Path(file).is_relative_to(base) for base in _INSTALLED)


_INSTALLED = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}


def _is_set(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _inner(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _inner(constant)


def _names(code: CodeType) -> set[str]:
    return {name for part in _inner(code) for name in part.co_names}


def _assigned(code: CodeType, *operations: str) -> set[str]:
    return {str(i.argval) for part in _inner(code) for i in dis.get_instructions(part) if i.opname in operations}


def _shape(code: CodeType, doc: str | None = None) -> Json:
    """What a function does, without where it stands in its file and what its documentation says."""
    constants = [_constant(c) for i, c in enumerate(code.co_consts) if not (i == 0 and doc is not None and c == doc)]
    return [code.co_code.hex(), list(code.co_names), list(code.co_varnames), constants]


def _constant(value: Any) -> Json:
    if isinstance(value, CodeType):
        return _shape(value)
    if isinstance(value, tuple):
        return ["tuple", *(_constant(v) for v in value)]
    if isinstance(value, frozenset):  # its order depends on the process
        return ["set", *sorted((_constant(v) for v in value), key=json.dumps)]
    return _plain(value)


def _plain(value: Any) -> str:
    """A constant as text; of a long integer Python makes no decimal digits."""
    return hex(value) if isinstance(value, int) and value.bit_length() > MOST_BITS else repr(value)


def _short(function: Any) -> str:
    return name_of(function).partition(":")[2]


__all__ = ["changed_code", "code_digest", "differences", "write_recipe"]

"""Sending the user's code, and questions, to workers on this machine.

Functions of modules go by name. Functions of ``__main__`` and of notebook cells go by value, with what they refer to.
A module that a fresh interpreter would not find by its name goes by its file.
"""

from __future__ import annotations

import io
import logging
import marshal
import pickle
import sys
import sysconfig
from collections import ChainMap
from collections.abc import Callable, Iterator
from importlib import invalidate_caches
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, ClassVar, final

import cloudpickle

from umbel.arrays import Array, Arrays
from umbel.client.app import ClientApp
from umbel.errors import UmbelError, UsageError
from umbel.simulation.loading import loading
from umbel.simulation.messages import Search
from umbel.simulation.reducing import main_by_value, reduced, uncached

logger = logging.getLogger("umbel")
LARGE = 10 << 20
_IN_SETUP = "load it in @client.setup or @client.data, where the clients are"


def dumps(value: Any) -> bytes:
    """A value as bytes for a worker of this machine."""
    file = io.BytesIO()
    _Packer(file).dump(value)
    return file.getvalue()


def pack_app(app: ClientApp, *, warn: bool = True) -> bytes:
    """The app as bytes for a worker of this machine.

    Args:
        app: the app.
        warn: is it said if it is large?

    Raises:
        UsageError: something in it cannot be sent; names it.
    """
    try:
        data = dumps(app)
    except Exception as error:
        name, why = next(_not_sendable(app), ("the client app", error))
        raise UsageError(
            f"{name} cannot be sent to a worker process: {type(why).__name__}: {why}",
            advice=f"{_IN_SETUP}; or take engine='inline', which sends nothing",
        ) from error
    if warn and len(data) > LARGE:
        _warn(app, len(data))
    return data


def unpack_app(data: bytes) -> ClientApp:
    """The app that was packed, by the process that started this one."""
    with loading():
        app: ClientApp = pickle.loads(data)  # noqa: S301  # from our own parent
    return app


def _warn(app: ClientApp, size: int) -> None:
    sizes = {name: _size(value) for name, value in _captured(app)}
    names = [f"{name} ({sizes[name] >> 20:,} MB)" for name in sorted(sizes, key=lambda n: -sizes[n])[:3]]
    logger.warning(
        "large-app: each worker process is sent %d MB with the client app: %s; %s",
        size >> 20,
        ", ".join(names),
        _IN_SETUP,
    )


def _not_sendable(app: ClientApp) -> Iterator[tuple[str, Exception]]:
    for name, value in _captured(app):
        try:
            dumps(value)
        except Exception as error:  # noqa: BLE001  # whatever it raises is what is to be told
            yield name, error


def _size(value: Any) -> int:
    try:
        return len(dumps(value))
    except Exception:  # noqa: BLE001  # it was measured to be told of, and is told of without
        return 0


def _captured(app: ClientApp) -> Iterator[tuple[str, Any]]:
    """The global and enclosing names that handlers of `__main__` refer to, also through functions of theirs."""
    todo: list[Any] = [*app.handlers.values(), *app.queries.values(), *app.middleware]
    seen: set[int] = set()
    for function in todo:  # grows while it is walked
        function = uncached(getattr(function, "__func__", getattr(function, "func", function)))  # noqa: PLW2901
        if not isinstance(function, FunctionType) or id(function) in seen:
            continue
        seen.add(id(function))
        for name, value in _referred(function):
            inner = uncached(value)
            if isinstance(inner, FunctionType) and inner.__module__ == function.__module__:
                todo.append(inner)
            elif not isinstance(value, ModuleType | type) and value is not app:
                yield f"{name!r}, which {function.__name__} uses,", value


def _referred(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for cell, name in zip(function.__closure__ or (), function.__code__.co_freevars, strict=True):
        yield name, cell.cell_contents
    for name in _names(function.__code__):
        if name in function.__globals__:
            yield name, function.__globals__[name]


def _names(code: CodeType) -> set[str]:
    inner = (_names(c) for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*inner)


# --- modules ---------------------------------------------------------------------------------


_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def search() -> Search:
    """Where a worker is to find modules now: where this process does."""
    path = [str(place) for place in sys.path if isinstance(place, str)]  # Python itself leaves out what is no text
    return Search(path, modules_by_file())


def search_there(search: Search) -> None:
    """Find modules there, from now on; and after that where user code in this process has found more."""
    sys.path[:] = [*search.path, *(place for place in sys.path if place not in search.path)]
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, ByFile)]
    sys.meta_path.append(ByFile(dict(search.modules)))
    invalidate_caches()


def modules_by_file() -> dict[str, str]:
    """Loaded modules that an interpreter with this path would not find by their names."""
    found: dict[str, str] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name == "__main__" or not file or not file.endswith(".py") or file.startswith(_INSTALLED):
            continue
        if not _is_found(name, file):
            found[name] = file
    return found


def _is_found(name: str, file: str) -> bool:
    parent, _, _ = name.rpartition(".")
    try:
        path = getattr(sys.modules[parent], "__path__", None) if parent else None
        spec = PathFinder.find_spec(name, path)
    except (ImportError, KeyError, AttributeError, ValueError):
        return False
    return spec is not None and spec.origin == file


@final
class ByFile(MetaPathFinder):
    """Finds modules by name in a list of files."""

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """The module's spec, if it is in the list."""
        del path, target
        file = self._files.get(fullname)
        if file is None:
            below = f"{fullname}."
            if any(name.startswith(below) for name in self._files):  # a package without a file
                return ModuleSpec(fullname, None, is_package=True)
            return None
        places = [str(Path(file).parent)] if Path(file).name == "__init__.py" else None
        return spec_from_file_location(fullname, file, submodule_search_locations=places)


# --- questions -------------------------------------------------------------------------------


@final
class _Packer(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles a value; of `Arrays` only where they were put, if they are to be put somewhere."""

    # with the names of files, which cloudpickle leaves out, so that tracebacks show the user's lines
    dispatch_table: ClassVar[Any] = ChainMap(
        {CodeType: lambda code: (marshal.loads, (marshal.dumps(code),))}, cloudpickle.Pickler.dispatch_table
    )

    def __init__(self, file: io.BytesIO, put: Callable[[Arrays], int] | None = None) -> None:
        super().__init__(file, protocol=5)
        self._put = put
        self._where: dict[int, tuple[Any, int]] = {}

    def dump(self, obj: Any) -> None:
        """Pickle a value."""
        with main_by_value():
            super().dump(obj)

    def reducer_override(self, obj: Any) -> Any:
        """How to make an object again; NotImplemented: as its type says."""
        how = reduced(obj)
        return super().reducer_override(obj) if how is NotImplemented else how

    def persistent_id(self, obj: Any) -> Any:
        """Where arrays lie, and their spec."""
        if type(obj) is not Arrays or self._put is None:
            return None
        if id(obj) not in self._where:
            self._where[id(obj)] = (obj.spec, self._put(obj))
        return self._where[id(obj)]


@final
class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, get: Callable[[int, int], Array]) -> None:
        super().__init__(file)
        self._get = get

    def persistent_load(self, pid: Any) -> Arrays:
        spec, offset = pid
        return Arrays.over(spec, self._get(offset, len(spec.header) + spec.nbytes))


def pack(value: Any, put: Callable[[Arrays], int]) -> bytes:
    """A value as bytes; its arrays are put elsewhere.

    Raises:
        UsageError: something in it cannot be sent.
    """
    file = io.BytesIO()
    try:
        _Packer(file, put).dump(value)
    except UmbelError:
        raise
    except Exception as error:
        raise UsageError(
            f"what the clients are asked cannot be sent to a worker process: {type(error).__name__}: {error}",
            advice="let transforms, rules and config hold plain values; or take engine='inline', which sends nothing",
        ) from error
    return file.getvalue()


def unpack(data: bytes, get: Callable[[int, int], Array]) -> Any:
    """What was packed; arrays over the bytes that ``get(offset, size)`` gives."""
    with loading():
        return _Unpacker(io.BytesIO(data), get).load()


__all__ = ["ByFile", "dumps", "modules_by_file", "pack", "pack_app", "search", "search_there", "unpack", "unpack_app"]

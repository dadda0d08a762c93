"""How a worker gets objects for which pickle and cloudpickle have no way, or not the right one.

Caches and dispatchers of functions of ``__main__`` go by value, as those functions do; what a cache holds stays behind.
The generators that all share go by name: a worker seeds its own before each task, and would not seed a copy.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import FunctionType
from typing import Any

import cloudpickle

_Cached = functools._lru_cache_wrapper
_MP_MAIN = "__mp_main__"  # what multiprocessing calls the program in a process that it has not forked
_DISPATCHER = functools.singledispatch(lambda _: None).__code__  # type: ignore[attr-defined]  # all have the same
_MADE = {  # with the object
    *("__wrapped__", "__annotations__", "__annotate__", "__type_params__"),
    *("cache_parameters", "dispatch", "register", "registry", "_clear_cache"),
}
_SHARED = {  # by the name of the type, since nothing is imported for this; `from random import shuffle` holds the first
    "Random": ("random", "_inst"),
    "RandomState": ("numpy.random.mtrand", "_rand"),
    "Generator": ("torch", "default_generator"),
}


def reduced(obj: Any) -> Any:
    """What pickle wants to know of an object; NotImplemented: it may do as ever."""
    kind = type(obj)
    if place := _SHARED.get(kind.__name__):
        return (_attribute, place) if obj is getattr(sys.modules.get(place[0]), place[1], None) else NotImplemented
    if kind is _Cached:
        if _is_found(obj):
            return NotImplemented
        parameters = obj.cache_parameters()
        return _cached, (obj.__wrapped__, parameters["maxsize"], parameters["typed"]), _attributes(obj)
    if kind is functools.cached_property:  # before Python 3.12 it has a lock
        return kind, (obj.func,), {name: value for name, value in vars(obj).items() if name != "lock"}
    if kind is FunctionType and obj.__code__ is _DISPATCHER and not _is_found(obj):
        others = {cls: function for cls, function in obj.registry.items() if cls is not object}
        state = others, _attributes(obj) | {name: getattr(obj, name) for name in functools.WRAPPER_ASSIGNMENTS[:4]}
        return functools.singledispatch, (obj.registry[object],), state, None, None, _fill_dispatcher
    return NotImplemented


def uncached(function: Any) -> Any:
    """The function behind a cache; what has none is given back."""
    return function.__wrapped__ if isinstance(function, _Cached) else function


def _is_found(obj: Any) -> bool:
    """Will its name lead to it in a worker?"""
    name = getattr(obj, "__module__", None)
    found = sys.modules.get(name) if name not in ("__main__", _MP_MAIN, None) else None
    for part in getattr(obj, "__qualname__", "<nameless>").split("."):
        found = getattr(found, part, None)
    return found is obj


def _attributes(obj: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(obj).items() if name not in _MADE}


def _attribute(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


def _cached(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(function)


def _fill_dispatcher(dispatcher: Any, state: tuple[Mapping[type, Any], Mapping[str, Any]]) -> None:
    """Late, since functions of it may refer to it."""
    functions, attributes = state
    for name, value in attributes.items():
        setattr(dispatcher, name, value)
    for cls, function in functions.items():
        dispatcher.register(cls, function)


@contextmanager
def main_by_value() -> Iterator[None]:
    """The program's functions and classes go by value in a process of multiprocessing, too, where it has two names."""
    module = sys.modules.get(_MP_MAIN)
    if module is None or module.__name__ != _MP_MAIN or _MP_MAIN in cloudpickle.list_registry_pickle_by_value():
        yield
        return
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)


__all__ = ["main_by_value", "reduced", "uncached"]

"""The arrays in an optimizer's state, wherever they stand: dataclasses, tuples, lists and dictionaries of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any


def _fields(tree: Any) -> tuple[str, ...]:
    kind: Any = type(tree)
    return _fields_of(kind)


@lru_cache(maxsize=256)
def _fields_of(kind: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind) if f.init) if is_dataclass(kind) else ()


def leaves(tree: Any) -> list[Any]:
    """What is no dataclass, tuple, list or dictionary, from left to right."""
    if isinstance(tree, tuple | list):
        return [leaf for part in tree for leaf in leaves(part)]
    if isinstance(tree, dict):
        return [leaf for part in tree.values() for leaf in leaves(part)]
    names = _fields(tree)
    return [leaf for name in names for leaf in leaves(getattr(tree, name))] if names else [tree]


def remade(tree: Any, new: Iterator[Any]) -> Any:
    """The same tree with other leaves, taken one by one."""
    if isinstance(tree, tuple | list):
        parts = [remade(part, new) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if isinstance(tree, dict):
        return {key: remade(part, new) for key, part in tree.items()}
    names = _fields(tree)
    if names:
        return type(tree)(**{name: remade(getattr(tree, name), new) for name in names})
    return next(new)


__all__ = ["leaves", "remade"]

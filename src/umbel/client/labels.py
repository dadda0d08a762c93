"""PyTorch's labels for profilers, made only where a profiler listens.

Each step of an optimizer, and each ``zero_grad``, goes into and out of one. Unheard they take 60 of the 263
microseconds that two steps of softmax regression take.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_NAMES = ("__init__", "__enter__", "__exit__")
_replaced: list[tuple[Any, ...]] = []  # the class, and its own methods of these names, while others stand in for them


@contextmanager
def only_heard() -> Iterator[None]:
    """Meanwhile, no label is made that nobody hears; of a PyTorch that comes later, once `leave_unheard` is called."""
    outermost = not _replaced
    leave_unheard()
    try:
        yield
    finally:
        if outermost and _replaced:
            labels, *methods = _replaced.pop()
            for name, method in zip(_NAMES, methods, strict=True):
                setattr(labels, name, method)


def leave_unheard() -> None:
    """From now on, no label is made that nobody hears, if PyTorch is there and is as we know it."""
    torch: Any = sys.modules.get("torch.autograd")
    labels = getattr(sys.modules.get("torch.autograd.profiler"), "record_function", None)
    listens = getattr(torch, "_profiler_enabled", None)
    if _replaced or labels is None or listens is None or not hasattr(labels(""), "record"):
        return
    _replaced.append((labels, *(vars(labels)[name] for name in _NAMES)))
    # its methods, and not the class: PyTorch's compiler knows that one when it sees it
    for name, method in zip(_NAMES, _stand_ins(listens, *_replaced[0]), strict=True):
        setattr(labels, name, method)


def _stand_ins(
    listens: Callable[[], bool],
    labels: Any,
    init: Callable[..., Any],
    enter: Callable[..., Any],
    leave: Callable[..., Any],
) -> tuple[Callable[..., Any], ...]:
    usual = vars(labels(""))

    def made(self: Any, name: str, args: str | None = None) -> None:
        if listens():
            init(self, name, args)
        else:
            vars(self).update(usual)
            self.name, self.args = name, args

    def entered(self: Any) -> Any:
        if listens():
            return enter(self)
        self.record = None  # a decorator is used again and again, and may have been heard
        return self

    def left(self: Any, *error: Any) -> Any:
        return None if self.record is None else leave(self, *error)

    return made, entered, left


__all__ = ["leave_unheard", "only_heard"]

"""A question as a process that answers it looks at it, and a task whose handler can be called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, final

from umbel.arrays import Arrays
from umbel.client.app import Handler
from umbel.client.context import ClientInfo, Conditions, Context
from umbel.engine.question import Question


@final
class Begun(NamedTuple):
    """A task whose handler can be called: of whom, with what, and what seeds the generators before."""

    key: int | Callable[[], int]
    client: ClientInfo
    model: Arrays | None
    state: Mapping[str, Any]
    ctx: Context


as_begun = partial(tuple.__new__, Begun)  # less than half the time of its own constructor, which is not in C


@final
@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and what follows from it for all clients.

    Attributes:
        question: the question.
        handler: what is called, inside its middleware.
        doing: the handler in words, for errors.
        key: what seeds the generators before a client's handler, by its name.
        conditions: what all contexts have in common.
        whole: can an update of the model's own spec leave as it is, without a look at its entries?
        plain: is that so, and nothing else done with an update before it is folded?
        loads: may set-up or data be loaded for a client?
    """

    question: Question
    handler: Handler
    doing: str
    key: Callable[[str], int]
    conditions: Conditions
    whole: bool
    plain: bool
    loads: bool


__all__ = ["Asked", "Begun", "as_begun"]

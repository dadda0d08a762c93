"""Entries of the model that never leave their client: where a task gets them from, and where they go."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from umbel.aggregate.expected import FOLDED, check_finite
from umbel.arrays import Arrays
from umbel.client.state import LOCAL
from umbel.engine.question import Question
from umbel.errors import BadUpdate
from umbel.spec import FLOATS, Spec
from umbel.update import Update


def with_local_entries(question: Question, state: Mapping[str, Any]) -> Arrays | None:
    """The model as the handler sees it: entries that never leave this client come from its state."""
    mine = state.get(LOCAL)
    if question.model is None or not isinstance(mine, Arrays):
        return question.model
    local = {e.name for e in question.model.spec.entries if e.role == "local"}
    model = question.model

    def write(name: str, out: Any) -> None:
        np.copyto(out, (mine if name in local and name in mine.spec.by_name else model).raw(name))

    return Arrays.build(model.spec, write) if local else model


def _moved(model: Arrays, change: Arrays) -> Arrays:
    """The entries that a change names, after it."""
    return model.with_values({name: model[name] + change[name] for name in change}).select(
        lambda e: e.name in change.spec.by_name
    )


def _check_local(sent: Arrays, mine: Arrays) -> None:
    for e in mine.spec.entries:
        asked = sent.spec.by_name[e.name]
        if (e.dtype, e.shape) != (asked.dtype, asked.shape):
            raise BadUpdate(
                f"entry {e.name!r} is {e.dtype} {e.shape}, {asked.dtype} {asked.shape} was sent",
                entry=e.name,
            )


@lru_cache(maxsize=256)
def all_leaves(sent: Spec, got: Spec) -> bool:
    """Is there nothing in an update that stays at the client, or at the server?"""
    roles = {name: e.role for name, e in sent.by_name.items()}
    return "local" not in roles.values() and all(roles.get(e.name, "trained") in FOLDED for e in got.entries)


def take_local_entries(question: Question, model: Arrays | None, update: Update, after: dict[str, Any]) -> Update:
    """Keep local entries in the client's state, and let only those leave that are sent back."""
    if question.sent is None or model is None or all_leaves(question.sent.spec, update.arrays.spec):
        return update
    roles = {name: e.role for name, e in question.sent.spec.by_name.items()}
    mine = update.arrays.select(lambda e: roles.get(e.name) == "local")
    if update.kind == "model":
        missing = next((n for n, r in roles.items() if r == "local" and n not in mine.spec.by_name), None)
        if missing is not None:
            raise BadUpdate(
                f"entry {missing!r} is missing; it is not shared, and a client keeps what its update holds",
                entry=missing,
                advice="return the whole model; what is not shared is taken out before anything is sent",
            )
    if len(mine):
        _check_local(question.sent, mine)
        after[LOCAL] = mine if update.kind == "model" else _moved(model, mine)
        check_finite(after[LOCAL])
    if all(roles.get(e.name, "trained") in FOLDED for e in update.arrays.spec.entries):
        return update
    lost = next((e for e in update.arrays.spec.entries if roles.get(e.name) == "counter" and e.dtype in FLOATS), None)
    if lost is not None:
        raise BadUpdate(
            f"entry {lost.name!r} was sent as an integer, whose value the server keeps, and came back as {lost.dtype}",
            entry=lost.name,
            advice="let the initial model have a float there: 0.0 and not 0, np.zeros(3) and not np.zeros(3, int)",
        )
    return update.replace(update.arrays.select(lambda e: roles.get(e.name, "trained") in FOLDED))


__all__ = ["all_leaves", "take_local_entries", "with_local_entries"]

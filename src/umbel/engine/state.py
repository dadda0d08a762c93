"""What main commits, as it is at that moment."""

from __future__ import annotations

from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def held(state: Any) -> Any:
    """The same tree of values in containers of its own, for main may go on to change those it gave.

    What does not change is shared: numbers, text, bytes and `Arrays`. Anything else is left as it is.
    """
    if isinstance(state, dict):
        return {key: held(value) for key, value in state.items()}
    if isinstance(state, list):
        return [held(value) for value in state]
    if type(state) is tuple:
        return tuple(held(value) for value in state)
    if isinstance(state, np.ndarray):
        return state.copy(order="K")  # main goes on with its own, whose sums depend on the order in memory
    if is_dataclass(state) and not isinstance(state, type):
        made = copy(state)
        for f in fields(state):
            object.__setattr__(made, f.name, held(getattr(state, f.name)))
        return made
    return state


__all__ = ["held"]

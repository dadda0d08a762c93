"""Checks of arguments that many constructors have in common."""

from __future__ import annotations

import math

import numpy as np

from umbel.errors import UsageError


def number(
    value: object,
    what: str,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> float:
    """A finite number within bounds, as a float.

    Args:
        value: what was given.
        what: how to call it in the error.
        above: it must be greater than this.
        least: it must be at least this.
        below: it must be less than this.
        most: it must be at most this.

    Raises:
        UsageError: it is no number, not finite, or out of bounds.
    """
    given = finite(value)
    if given is None or not (above < given < below and least <= given <= most):
        bounds = {">": above, ">=": least, "<": below, "<=": most}
        words = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds.items() if math.isfinite(bound))
        raise UsageError(f"{what} is {value!r}", advice=f"give a finite number {words}".rstrip())
    return given


def whole(value: object, what: str, *, least: int = 1) -> int:
    """A whole number of at least ``least``, as an int.

    Raises:
        UsageError: it is no whole number, or a smaller one.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise UsageError(f"{what} is {value!r}", advice=f"give a whole number >= {least}")
    return int(value)


def finite(value: object) -> float | None:
    """The value as a float; None if it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return None
    try:
        given = float(value)
    except OverflowError:
        return None
    return given if math.isfinite(given) else None


__all__ = ["finite", "number", "whole"]

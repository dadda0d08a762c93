"""What ``umbel doctor`` has found: one line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, final

from umbel.errors import UmbelError

Status = Literal["ok", "warning", "bad"]
OK: Final = "ok"
WARNING: Final = "warning"
BAD: Final = "bad"


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what was looked at, in a word or two.
        status: "ok", "warning" or "bad".
        what: how it is.
        advice: what to do; "" if nothing.
    """

    check: str
    status: Status
    what: str
    advice: str = ""


def ok(check: str, what: str) -> Finding:
    """All is well."""
    return Finding(check, OK, what)


def warning(check: str, what: str, advice: str) -> Finding:
    """Something may go wrong later."""
    return Finding(check, WARNING, what, advice)


def bad(check: str, what: str, advice: str) -> Finding:
    """Something is wrong."""
    return Finding(check, BAD, what, advice)


def failed(check: str, error: UmbelError) -> Finding:
    """What an error says."""
    return Finding(check, BAD, error.what, error.advice)


__all__ = ["BAD", "OK", "WARNING", "Finding", "Status", "bad", "failed", "ok", "warning"]

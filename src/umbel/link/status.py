"""Errors as gRPC states them, and back: one table.

A status has a code, a text, and two fields beside it: "umbel-code", the stable code of the error, and, where the server
does not know itself what went wrong, an incident's number in the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, final

from umbel import errors
from umbel.errors import UmbelError

CODE = "umbel-code"
"""The name of the metadata that holds the error's stable code."""
_ADVICE = "\n  What to do: "
_LONGEST = 4500  # bytes of text on the way: with the rest of the headers less than the 8 KiB that gRPC lets through
_PLAIN = frozenset(range(0x20, 0x7F)) - {ord("%")}  # bytes that travel as they are; of others each takes three

_SENT: Final[Mapping[type[UmbelError], str]] = {
    errors.Unauthenticated: "UNAUTHENTICATED",
    errors.NotAllowed: "PERMISSION_DENIED",
    errors.Refused: "PERMISSION_DENIED",
    errors.NotThere: "NOT_FOUND",
    errors.AppMissing: "NOT_FOUND",
    errors.Rejected: "INVALID_ARGUMENT",
    errors.UsageError: "INVALID_ARGUMENT",
    errors.FormatError: "INVALID_ARGUMENT",
    errors.BadUpdate: "INVALID_ARGUMENT",
    errors.AppDiffers: "FAILED_PRECONDITION",
    errors.BadSignature: "FAILED_PRECONDITION",
    errors.Incompatible: "FAILED_PRECONDITION",
    errors.RunError: "FAILED_PRECONDITION",
    errors.InUse: "ALREADY_EXISTS",
    errors.DiskFull: "RESOURCE_EXHAUSTED",
    errors.Unreachable: "UNAVAILABLE",
}
_HEARD: Final[Mapping[str, type[UmbelError]]] = {
    "UNAUTHENTICATED": errors.Unauthenticated,
    "PERMISSION_DENIED": errors.NotAllowed,
    "NOT_FOUND": errors.NotThere,
    "INVALID_ARGUMENT": errors.Rejected,
    "FAILED_PRECONDITION": errors.Rejected,
    "OUT_OF_RANGE": errors.Rejected,
    "ALREADY_EXISTS": errors.InUse,
    "RESOURCE_EXHAUSTED": errors.Rejected,
    "UNIMPLEMENTED": errors.Incompatible,
    "UNAVAILABLE": errors.Unreachable,
    "DEADLINE_EXCEEDED": errors.Unreachable,
    "CANCELLED": errors.Unreachable,
    "ABORTED": errors.Unreachable,
    "INTERNAL": errors.Unreachable,
    "UNKNOWN": errors.Unreachable,
    "DATA_LOSS": errors.Unreachable,
}
# What a code names; such errors are made from a text alone.
_LEAVES: Final[Mapping[str, type[UmbelError]]] = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, UmbelError) and not kind.__subclasses__()
} | {errors.UsageError.code: errors.UsageError}
# The reader has refused what it was sent by another; here it is the other way round.
_REFUSED: Final = (errors.FormatError, errors.UsageError, errors.BadUpdate)


@final
@dataclass(frozen=True, slots=True)
class Status:
    """How a call ended that went wrong.

    Attributes:
        code: gRPC's name for it, "NOT_FOUND".
        text: what happened, and what to do; for people.
        name: the stable code of the error, or "" where the server is none of ours.
    """

    code: str
    text: str
    name: str = ""


def status_of(error: UmbelError) -> Status | None:
    """An error as a status; None: it is the server's own trouble, such as a damaged file, not the caller's."""
    code = next((_SENT[kind] for kind in type(error).__mro__ if kind in _SENT), None)
    if code is None:
        return None
    name = errors.Rejected.code if isinstance(error, _REFUSED) else error.code
    advice = f"{_ADVICE}{_fitting(error.advice, _LONGEST // 3)}" if error.advice else ""
    return Status(code, _fitting(error.what, _LONGEST // 3 * 2) + advice, name)


def internal(incident: str) -> Status:
    """The status of an error that nobody foresaw."""
    advice = f"ask the operator to look for incident {incident} in the server's log, and try again later"
    return Status("INTERNAL", f"the server failed on its side{_ADVICE}{advice}", errors.Unreachable.code)


def error_of(status: Status, *, advice: str = "") -> UmbelError:
    """The error that a status states.

    Args:
        status: how the call ended.
        advice: what to do, where the server does not say.
    """
    what, _, said = status.text.partition(_ADVICE)
    kind = _LEAVES.get(status.name) or _HEARD.get(status.code, errors.Unreachable)
    return kind(what or f"the call ended with {status.code}", advice=said or advice)


def _fitting(text: str, most: int) -> str:
    """The text, cut to so many bytes as it travels."""
    sizes = accumulate(1 if byte in _PLAIN else 3 for byte in text.encode("utf-8", "replace"))
    return shortened(text, sum(1 for size in sizes if size <= most))


def shortened(text: str, most: int) -> str:
    """The text, cut to so many bytes."""
    data = text.encode("utf-8", "replace")
    return text if len(data) <= most else data[:most].decode("utf-8", "ignore") + " ..."


__all__ = ["CODE", "Status", "error_of", "internal", "shortened", "status_of"]

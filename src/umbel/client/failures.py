"""An exception of user code in words: whatever it does itself, and no longer than people read.

It may be of a class of the user's, whose methods may do anything. What is said of it never raises, since nobody would
catch that: it would be the end of a worker process.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from types import TracebackType

from umbel.errors import ClientFailed, Failure, UmbelError

logger = logging.getLogger("umbel")

_CALLERS = "client/work client/in_turn client/app client/loads client/central session remote/session"  # of user code
_OURS = {str(Path(__file__).parents[1] / f"{name}.py") for name in _CALLERS.split()}
_LAYOUT = str.maketrans("", "", "\n\t")  # may stay
_TEXT = 500  # characters of a message; journals keep it
_HEAD, _TAIL = 4_000, 12_000  # characters of a traceback; what broke stands at its end


def words(error: BaseException) -> str:
    """Its class and its text, though its ``__str__`` may raise and its text may be a whole array."""
    try:
        text = _plain(str(error))
    except BaseException as again:  # noqa: BLE001  # it is the user's, and about to be reported
        text = f"(its text cannot be shown: __str__ raised {_name(type(again))})"
    name = _name(type(error))
    return shortened(f"{name}: {text}" if text else name, _TEXT, 0)


def own_words(error: BaseException) -> str | None:
    """Its text alone; None if it cannot be shown."""
    try:
        return _plain(str(error))
    except BaseException:  # noqa: BLE001  # as above
        return None


def code(error: BaseException) -> str:
    """What programs know the failure by: its own code, if it is one of ours that has one."""
    try:
        return _plain(error.code) if isinstance(error, UmbelError) else ClientFailed.code
    except BaseException:  # noqa: BLE001  # as above
        return ClientFailed.code


def is_of_memory(error: BaseException) -> bool:
    """Does it say that a device's memory is full?"""
    return any(_name(kind) == "OutOfMemoryError" for kind in type(error).__mro__)


def _name(kind: type) -> str:
    try:
        return _plain(kind.__name__)
    except BaseException:  # noqa: BLE001  # a metaclass may do anything, too
        return "an exception without a name"


def _plain(text: str) -> str:
    """A text, even one of a class of its own, that can be written down anywhere, as half a surrogate pair cannot."""
    return readable(str.encode(text, "utf-8", "backslashreplace").decode())


def readable(text: str) -> str:
    """The text, with what could do something to a terminal written out."""
    if text.translate(_LAYOUT).isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def trace(error: BaseException) -> str:
    """Its traceback from the user's first line on."""
    try:
        return shortened(_plain(_trace(error)), _HEAD, _TAIL)
    except BaseException:  # noqa: BLE001  # as above
        return words(error) + "\n"


def _trace(error: BaseException) -> str:
    begin: TracebackType | None = error.__traceback__
    while begin is not None and begin.tb_frame.f_code.co_filename in _OURS:
        begin = begin.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, begin))
    except BaseException:  # noqa: BLE001  # as above
        return "".join(traceback.format_tb(begin)) + words(error) + "\n"


def report_failure(who: str, round: int, what: str, error: Exception) -> Failure:  # the field's word
    """Someone's code beside the clients' failed: log it, and make it a value."""
    text = trace(error)
    kind = what.split(maxsplit=1)[0]
    logger.error("%s-failed: %s in round %d; the run goes on\n%s", kind, who, round, text)
    message = f"{what} raised {words(error)}"
    return Failure(client=who, round=round, kind=what, code=f"{kind}-failed", message=message, traceback=text)


def shortened(text: str, head: int, tail: int) -> str:
    """A text's beginning and end, if the whole is too long."""
    if len(text) <= head + tail:
        return text
    return (
        f"{text[:head]}\n... {len(text) - head - tail:,} characters are left out here ...\n{text[len(text) - tail :]}"
    )


__all__ = ["code", "is_of_memory", "own_words", "readable", "report_failure", "shortened", "trace", "words"]

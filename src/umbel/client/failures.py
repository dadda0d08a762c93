"""An exception of user code in words: whatever it does itself, and no longer than people read."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType

_OURS = {str(Path(__file__).with_name(name)) for name in ("work.py", "in_turn.py", "app.py")}
_TEXT = 500  # characters of a message; journals keep it
_HEAD, _TAIL = 4_000, 12_000  # characters of a traceback; what broke stands at its end


def words(error: BaseException) -> str:
    """Its class and its text, though its ``__str__`` may raise and its text may be a whole array."""
    try:
        text = str(error)
    except Exception as again:  # noqa: BLE001  # it is the user's, and about to be reported
        text = f"(its text cannot be shown: __str__ raised {type(again).__name__})"
    name = type(error).__name__
    return shortened(f"{name}: {text}" if text else name, _TEXT, 0)


def trace(error: BaseException) -> str:
    """Its traceback from the user's first line on."""
    begin: TracebackType | None = error.__traceback__
    while begin is not None and begin.tb_frame.f_code.co_filename in _OURS:
        begin = begin.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, begin))
    except Exception:  # noqa: BLE001  # as above
        text = "".join(traceback.format_tb(begin)) + words(error) + "\n"
    return shortened(text, _HEAD, _TAIL)


def shortened(text: str, head: int, tail: int) -> str:
    """A text's beginning and end, if the whole is too long."""
    if len(text) <= head + tail:
        return text
    return (
        f"{text[:head]}\n... {len(text) - head - tail:,} characters are left out here ...\n{text[len(text) - tail :]}"
    )


__all__ = ["shortened", "trace", "words"]

"""What commands print: lines and tables for people, or JSON for programs, on standard output; notes on the other."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from umbel.cli.streams import Output

_FURTHER = re.compile(r"\n(?!  )")
_UNITS = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second"))


def line(text: str) -> None:
    """A line for people."""
    sys.stdout.write(f"{shown(text)}\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A line beside the output."""
    sys.stderr.write(f"{shown(text)}\n")
    sys.stderr.flush()


def shown(text: str) -> str:
    """The text, with what could do something to a terminal written out: much of it is from other machines."""
    if text.isprintable():  # as nearly all is
        return text
    from umbel.client.failures import readable

    return readable(text)


def below(text: str) -> str:
    """The text with its further lines set in, so that none of them looks like a line that we have written."""
    return _FURTHER.sub("\n  ", text)


def give(value: Any) -> None:
    """One JSON value on a line of its own."""
    stream = Output.stream()
    stream.write(f"{json.dumps(value, default=_plain)}\n")
    stream.flush()


def _plain(value: Any) -> Any:
    """What JSON lacks: arrays and numbers of NumPy, bytes."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple | set | frozenset) else str(value)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A table: by rich on a terminal, else as aligned text.

    Args:
        columns: their names.
        rows: a text for each column.
        right: columns whose texts stand to the right, as numbers do.
    """
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        made = Table(box=None, pad_edge=False)
        for column in columns:
            made.add_column(Text(shown(column)), justify="right" if column in right else "left", overflow="fold")
        for row in rows:
            made.add_row(*(Text(shown(text)) for text in row))
        Console().print(made)
        return
    widths = [max(map(len, texts)) for texts in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = [
            text.rjust(width) if column in right else text.ljust(width)
            for column, text, width in zip(columns, row, widths, strict=True)
        ]
        line("  ".join(cells).rstrip())


def ago(moment: float, now: float | None = None) -> str:
    """When something was or will be, for people: "3 minutes ago", "in 2 days"; "" for 0.

    Args:
        moment: seconds since 1970.
        now: the same; None: now.
    """
    if not moment:
        return ""
    away = moment - (time.time() if now is None else now)
    if abs(away) < 1:
        return "now"
    text = span(abs(away))
    return f"in {text}" if away > 0 else f"{text} ago"


def span(seconds: float) -> str:
    """A span of time for people, in its largest unit: "3 minutes"."""
    for size, unit in _UNITS:
        if seconds >= 0.99 * size:  # 59 minutes and 58 seconds are an hour
            count = round(seconds / size)
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return f"{seconds:.1f} seconds"


def clock(moment: float) -> str:
    """A moment in local time: "2026-11-28 07:31:11"."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def number(value: Any) -> str:
    """A cell of a table: a number with four digits, an array or a text on one line."""
    if value is None:
        return ""
    if isinstance(value, float) or type(value).__name__.startswith("float"):
        return f"{value:.4f}"
    return " ".join(str(value).split())


def seconds_of(text: str) -> float:
    """The seconds that a text stands for: "90", "30m", "12h", "7d".

    Raises:
        UsageError: it stands for none.
    """
    from umbel.errors import UsageError

    sizes = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    digits, size = (text[:-1], sizes[text[-1]]) if text[-1:] in sizes else (text, 1.0)
    try:
        found = float(digits) * size
    except ValueError:
        found = -1.0
    if not 0 < found < 1e12:  # servers take 0 for what was left out, which of a token is for ever
        raise UsageError(f"{text!r} is no span of time", advice="give a number above 0 and a unit: 30m, 12h, 7d")
    return found


__all__ = ["ago", "clock", "give", "line", "note", "number", "seconds_of", "span", "table"]

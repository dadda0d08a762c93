"""The streams of a command: open, able to take every letter, and with ``--json`` of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import ClassVar, TextIO, final


@final
class Output:
    """Where a command's JSON goes.

    Attributes:
        own: the stream that nobody else writes to; None: there is none, and standard output is it.
    """

    own: ClassVar[TextIO | None] = None

    @classmethod
    def stream(cls) -> TextIO:
        """The one to write to."""
        return cls.own or sys.stdout


def open_streams() -> None:
    """Write to nowhere where a stream is closed, as by `umbel ls >&-`.

    Else what is opened next would get the number of the closed one, and with it what others write there. And what a
    stream has no letters for, as one in ASCII for an umlaut, is written as an escape.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # for as long as the program runs
        elif isinstance(stream := getattr(sys, name), TextIOWrapper):  # and not what stands there in a test
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def only_json() -> Iterator[None]:
    """Keep standard output to the command's JSON; what an app prints, also in other processes, goes to standard error.

    On a terminal nobody parses it, and a bar may be shown there: all stays as it is.
    """
    if sys.stdout.isatty():
        yield
        return
    before = sys.stdout
    with _apart(before) as own:
        sys.stdout, Output.own = sys.stderr, own
        try:
            yield
        finally:
            sys.stdout, Output.own = before, None


@contextmanager
def _apart(stream: TextIO) -> Iterator[TextIO]:
    """Another stream to where this one goes, which goes to standard error meanwhile."""
    try:
        file = stream.fileno()
    except OSError:  # none of the system's, as in a test: no other process writes there
        yield stream
        return
    stream.flush()
    kept = os.dup(file)
    os.dup2(sys.stderr.fileno(), file)
    try:
        with open(os.dup(kept), "w", encoding="ascii") as apart:
            yield apart
    finally:
        stream.flush()  # for who had it from before
        os.dup2(kept, file)
        os.close(kept)


__all__ = ["Output", "only_json", "open_streams"]

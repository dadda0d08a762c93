"""What workers print: where this process prints.

Mostly that is the same file, and they inherit it. A notebook and a captured stream are objects of this process alone:
then workers print into a pipe, and this process writes on what it finds there.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

_PIECE = 1 << 16  # bytes, a pipe's capacity
_NAMES = ("stdout", "stderr")


@final
class Output:
    """Of one pool of workers; decided when it is made."""

    def __init__(self) -> None:
        self._pipes: dict[str, tuple[int, int]] = {}
        self._decoders: dict[int, tuple[str, codecs.IncrementalDecoder]] = {}
        for number, name in enumerate(_NAMES, 1):
            if not _is_file(getattr(sys, name), number):
                self._pipes[name] = read, _ = os.pipe()
                os.set_blocking(read, False)
                self._decoders[read] = name, codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def files(self) -> dict[str, int]:
        """Where a worker's "stdout" and "stderr" go, if not where they go anyhow."""
        return {name: write for name, (_, write) in self._pipes.items()}

    @property
    def sources(self) -> list[int]:
        """File descriptors that become readable when something was printed."""
        return list(self._decoders)

    def write_on(self) -> None:
        """Write what is there to where this process prints."""
        for file, (name, decoder) in self._decoders.items():
            if text := "".join(decoder.decode(data) for data in _pieces(file)):
                with contextlib.suppress(Exception):  # a stream that nobody reads any more ends no run
                    stream: Any = getattr(sys, name)
                    stream.write(text)
                    stream.flush()

    def close(self) -> None:
        """Write what is left, and close the pipes."""
        self.write_on()
        for pipe in self._pipes.values():
            for file in pipe:
                os.close(file)
        self._pipes, self._decoders = {}, {}


def _is_file(stream: Any, number: int) -> bool:
    """Does a stream of Python's end where that file descriptor leads?"""
    if stream is None:
        return True
    try:
        mine, its = os.fstat(stream.fileno()), os.fstat(number)
    except (AttributeError, OSError, TypeError, ValueError):  # no file at all
        return False
    return (mine.st_dev, mine.st_ino) == (its.st_dev, its.st_ino)


def _pieces(file: int) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError):
        while data := os.read(file, _PIECE):
            yield data
            if len(data) < _PIECE:
                return


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits; and a process that is started here does not hear it before it says otherwise."""
    import signal

    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


__all__ = ["Output", "uninterrupted"]

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
from typing import Any, final

_PIECE = 1 << 16  # bytes, a pipe's capacity
_NAMES = ("stdout", "stderr")

if sys.platform == "win32":
    import socket
    import threading

    from umbel.simulation.spawn import pair

    _PATIENCE = 1.0  # seconds to wait for what was printed before; a process that outlives us may still print

    @final
    class _Pipe:
        """One whose end others write to; nobody can wait for a pipe and for sockets, so a thread makes it a socket."""

        def __init__(self) -> None:
            read, self.write = os.pipe()
            self.source, end = pair()
            self.source.setblocking(False)
            threading.Thread(target=_pass_on, args=(read, end), name="umbel-output", daemon=True).start()

        def read(self) -> bytes:
            return self.source.recv(_PIECE)

        def finish(self) -> None:
            os.close(self.write)
            self.source.settimeout(_PATIENCE)

        def close(self) -> None:
            self.source.close()

    def _pass_on(file: int, end: socket.socket) -> None:
        with contextlib.suppress(OSError), end:
            while data := os.read(file, _PIECE):
                end.sendall(data)
        os.close(file)

else:

    @final
    class _Pipe:
        """One whose end others write to."""

        def __init__(self) -> None:
            self.source, self.write = os.pipe()
            os.set_blocking(self.source, False)

        def read(self) -> bytes:
            return os.read(self.source, _PIECE)

        def finish(self) -> None:
            os.close(self.write)

        def close(self) -> None:
            os.close(self.source)


@final
class Output:
    """Of one pool of workers; decided when it is made."""

    def __init__(self) -> None:
        self._pipes: dict[str, tuple[_Pipe, codecs.IncrementalDecoder]] = {}
        for number, name in enumerate(_NAMES, 1):
            if not _is_file(getattr(sys, name), number):
                self._pipes[name] = _Pipe(), codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def files(self) -> dict[str, int]:
        """Where a worker's "stdout" and "stderr" go, if not where they go anyhow."""
        return {name: pipe.write for name, (pipe, _) in self._pipes.items()}

    @property
    def sources(self) -> list[Any]:
        """What becomes readable when something was printed."""
        return [pipe.source for pipe, _ in self._pipes.values()]

    def write_on(self, *, to_end: bool = False) -> None:
        """Write what is there to where this process prints."""
        for name, (pipe, decoder) in self._pipes.items():
            text = "".join(decoder.decode(data) for data in _pieces(pipe, to_end=to_end))
            if text := text.replace(os.linesep, "\n"):
                with contextlib.suppress(Exception):  # a stream that nobody reads any more ends no run
                    stream: Any = getattr(sys, name)
                    stream.write(text)
                    stream.flush()

    def close(self) -> None:
        """Write what is left, and close the pipes."""
        for pipe, _ in self._pipes.values():
            pipe.finish()
        self.write_on(to_end=True)
        for pipe, _ in self._pipes.values():
            pipe.close()
        self._pipes = {}


def _is_file(stream: Any, number: int) -> bool:
    """Does a stream of Python's end where that file descriptor leads?"""
    if stream is None:
        return True
    try:
        file = stream.fileno()
        mine, its = os.fstat(file), os.fstat(number)
    except (AttributeError, OSError, TypeError, ValueError):  # no file at all
        return False
    return file == number or (mine.st_ino != 0 and os.path.samestat(mine, its))  # Windows numbers no pipes


def _pieces(pipe: _Pipe, *, to_end: bool) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError, TimeoutError):
        while data := pipe.read():
            yield data
            if len(data) < _PIECE and not to_end:
                return


__all__ = ["Output"]

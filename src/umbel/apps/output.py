"""What user code prints: line by line into the log, and the last of it into the report. A flood stops nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import final

KEPT = 16 << 10
"""Bytes of output that a report holds."""
_PIECE = 1 << 16  # bytes, a pipe's capacity
_LONGEST = 2000  # bytes of a line in the log
MOST_LINES = 500
"""Lines of a task in the log."""
_ENOUGH = 64  # pieces that are read at once when a task has ended; there may come more without end


@final
class Output:
    """The end of a pipe into which one child prints.

    Args:
        file: a file descriptor, which is this object's from now on.
        log: is called with each line.
        most: lines that are logged from one `begin` to the next.
    """

    def __init__(self, file: int, log: Callable[[str], object], *, most: int = MOST_LINES) -> None:
        self._file, self._log, self._most = file, log, most
        self._tail, self._line = bytearray(), bytearray()
        self._lines = 0
        os.set_blocking(file, False)
        asyncio.get_running_loop().add_reader(file, self.read)

    def begin(self) -> None:
        """A task begins: what was printed before is not its output."""
        self._tail.clear()
        self._lines = 0

    def tail(self) -> str:
        """The last of what was printed since."""
        for _ in range(_ENOUGH):
            if not self.read():
                break
        if self._line:
            self._say(bytes(self._line))
            self._line.clear()
        return self._tail.decode(errors="replace")

    def read(self) -> bool:
        """Read what there is; was there anything?"""
        if self._file < 0:
            return False
        try:
            data = os.read(self._file, _PIECE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        self._tail[:] = _shown(bytes(self._tail) + data)[-KEPT:]
        if self._lines > self._most:
            return
        *lines, rest = _shown(bytes(self._line) + data).split(b"\n")
        for line in lines:
            self._say(line)
        self._line[:] = rest
        if len(self._line) > _LONGEST:
            self._say(bytes(self._line))
            self._line.clear()

    def _say(self, line: bytes) -> None:
        self._lines += 1
        if self._lines <= self._most:
            text = line[:_LONGEST].decode(errors="replace").rstrip("\r")
            self._log("".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text))
        elif self._lines == self._most + 1:
            self._log("(the app prints more than is kept; the last of it is told if it fails)")

    def close(self) -> None:
        """Read no more."""
        if self._file >= 0:
            with suppress(RuntimeError):  # the loop has ended
                asyncio.get_running_loop().remove_reader(self._file)
            os.close(self._file)
            self._file = -1


def _shown(text: bytes) -> bytes:
    """What a terminal shows: of a line that is written again and again, as a progress bar is, the last."""
    return b"\n".join(map(_last, text.split(b"\n"))) if b"\r" in text else text


def _last(line: bytes) -> bytes:
    return line[line.rstrip(b"\r").rfind(b"\r") + 1 :]


__all__ = ["KEPT", "MOST_LINES", "Output"]

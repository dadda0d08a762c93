"""Messages over a socket to one worker, without ever waiting for it.

A worker that is busy does not read, and one that sends a long message waits until we read: if we waited for it in turn,
both would wait for ever. One that is killed in the middle of a message leaves a part of it, and the end of the socket
may stay open in a process that it had started. So what cannot be written now is kept, and only whole messages count.
"""

from __future__ import annotations

import itertools
import socket
import struct
import sys
from collections import deque
from collections.abc import Iterable
from typing import final

# The form that `multiprocessing.connection.Connection` has, which a worker reads and writes with.
_HEAD, _LONG = struct.Struct("!i"), struct.Struct("!Q")
_MOST = 0x7FFFFFFF  # bytes of a message whose length stands in the first word
_PARTS = 16  # that are sent at once; a system may take some hundreds
_buffer = memoryview(bytearray(1 << 18))  # for what is read at once; one for all, as none waits in it


@final
class Channel:
    """This process's end of a socket.

    Args:
        end: the socket; the channel's from now on.

    Attributes:
        at_end: has the other end been closed, and everything been read?
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        end.setblocking(False)
        self._out: deque[memoryview] = deque()
        self._in = bytearray()
        self._gone = False
        self.at_end = False

    def fileno(self) -> int:
        """The file descriptor."""
        return self._socket.fileno()

    @property
    def pending(self) -> bool:
        """Is there something that could not be written yet?"""
        return bool(self._out)

    def send(self, data: bytes) -> None:
        """Send a message, now or as soon as there is room; whoever is gone does not hear it."""
        size = len(data)
        self._out.append(memoryview(_HEAD.pack(size) if size <= _MOST else _HEAD.pack(-1) + _LONG.pack(size)))
        self._out.append(memoryview(data))
        self.flush()

    def flush(self) -> None:
        """Write what there is room for."""
        try:
            while self._out and not self._gone:
                self._written(_send(self._socket, self._out))
        except BlockingIOError:
            return
        except OSError:
            self._gone = True
        if self._gone:
            self._out.clear()

    def _written(self, sent: int) -> None:
        while self._out and sent >= len(self._out[0]):
            sent -= len(self._out.popleft())
        if sent:
            self._out[0] = self._out[0][sent:]

    def receive(self) -> list[bytes]:
        """The whole messages that have come."""
        try:
            while size := self._socket.recv_into(_buffer):
                self._in += _buffer[:size]
                if size < len(_buffer):
                    break  # nothing more for now; if this was the last, the next call says so
            else:
                self.at_end = True
        except BlockingIOError:  # nothing more for now
            pass
        except OSError:
            self.at_end = True
        messages, done = [], 0
        while (bounds := self._next(done)) is not None:
            begin, done = bounds
            messages.append(bytes(memoryview(self._in)[begin:done]))
        del self._in[:done]
        return messages

    def _next(self, at: int) -> tuple[int, int] | None:
        """Where the message begins and ends that comes behind the first bytes, if it is here as a whole."""
        if len(self._in) < at + _HEAD.size:
            return None
        (size,), begin = _HEAD.unpack_from(self._in, at), at + _HEAD.size
        if size == -1:
            if len(self._in) < begin + _LONG.size:
                return None
            (size,), begin = _LONG.unpack_from(self._in, begin), begin + _LONG.size
        return (begin, begin + size) if len(self._in) >= begin + size else None

    def close(self) -> None:
        """Close the socket."""
        self._out.clear()
        self._socket.close()


if sys.platform == "win32":

    def _send(end: socket.socket, parts: Iterable[memoryview]) -> int:
        return end.send(next(iter(parts)))

else:

    def _send(end: socket.socket, parts: Iterable[memoryview]) -> int:
        return end.sendmsg([*itertools.islice(parts, _PARTS)])


__all__ = ["Channel"]

"""What node and child say to each other over a pair of sockets: frames, of a header in JSON and of bytes.

    u32 length, header (a JSON object) | u32 length, body            lengths are little-endian

The child runs code of others. What it sends is bounded, and never unpickled.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple, final

from umbel.errors import FormatError

MOST_HEADER, MOST_BODY = 64 << 20, 2 << 30  # bytes
_LENGTH = struct.Struct("<I")


@final
class Frame(NamedTuple):
    """One message.

    Attributes:
        header: what it says.
        body: bytes to which the header refers.
    """

    header: Mapping[str, Any]
    body: bytes = b""


@final
class Garbage(Exception):
    """What came is no frame."""


def pack(header: Mapping[str, Any], body: bytes = b"") -> bytes:
    """A frame as bytes.

    Raises:
        FormatError: it is larger than a frame may be.
    """
    head = json.dumps(header, separators=(",", ":")).encode()
    if len(head) > MOST_HEADER or len(body) > MOST_BODY:
        raise FormatError(f"a message to the app's process would have {len(head) + len(body):,} bytes")
    return b"".join((_LENGTH.pack(len(head)), head, _LENGTH.pack(len(body)), body))


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """The next frame, for the node.

    Raises:
        Garbage: it is none.
        EOFError: the other side has ended.
    """
    try:
        header = await _read_part(reader, MOST_HEADER)
        value = json.loads(header)
        if not isinstance(value, dict):
            raise Garbage(f"its header is a {type(value).__name__}")
        return Frame(value, await _read_part(reader, MOST_BODY))
    except asyncio.IncompleteReadError as error:
        raise EOFError from error
    except (ValueError, RecursionError) as error:
        raise Garbage(f"its header is no JSON: {str(error)[:200]}") from error


async def _read_part(reader: asyncio.StreamReader, most: int) -> bytes:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > most:
        raise Garbage(f"one of its parts would have {length:,} bytes")
    return await reader.readexactly(length)


def receive(connection: socket.socket) -> Frame | None:
    """The next frame, for the child, which waits for it; None: there will be no more."""
    with connection.makefile("rb", buffering=0) as file:
        parts = []
        for _ in range(2):
            raw = _exactly(file, _LENGTH.size)
            if raw is None:
                return None
            part = _exactly(file, _LENGTH.unpack(raw)[0])
            if part is None:
                return None
            parts.append(part)
    return Frame(json.loads(parts[0]), parts[1])


def _exactly(file: Any, size: int) -> bytes | None:
    data = bytearray(size)
    view, there = memoryview(data), 0
    while there < size:
        got = file.readinto(view[there:])
        if not got:
            return None
        there += got
    return bytes(data)


__all__ = ["Frame", "Garbage", "pack", "read_frame", "receive"]

"""What a program and an app's process say to each other over two sockets: frames, of a header in JSON and of bytes.

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
    """The next frame, for who has an event loop.

    Raises:
        Garbage: it is none.
        EOFError: the other side has ended.
    """
    try:
        value = _object(await _read_part(reader, MOST_HEADER))
        return Frame(value, await _read_part(reader, MOST_BODY))
    except asyncio.IncompleteReadError as error:
        raise EOFError from error


async def _read_part(reader: asyncio.StreamReader, most: int) -> bytes:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > most:
        raise Garbage(f"one of its parts would have {length:,} bytes")
    return await reader.readexactly(length)


def receive(connection: socket.socket) -> Frame | None:
    """The next frame, for who waits for it; None: there will be no more.

    Raises:
        Garbage: it is none.
    """
    parts = []
    with connection.makefile("rb", buffering=0) as file:
        for most in (MOST_HEADER, MOST_BODY):
            raw = _exactly(file, _LENGTH.size)
            if raw is None:
                return None
            (length,) = _LENGTH.unpack(raw)
            if length > most:
                raise Garbage(f"one of its parts would have {length:,} bytes")
            part = _exactly(file, length)
            if part is None:
                return None
            parts.append(part)
    return Frame(_object(parts[0]), parts[1])


def _object(header: bytes) -> dict[str, Any]:
    try:
        value = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise Garbage(f"its header is no JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise Garbage(f"its header is a {type(value).__name__}")
    return value


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

"""Chunks of blobs as messages, without protobuf's copies.

A message with one field of bytes is a tag, a length and the bytes. protobuf copies the bytes when it makes such a
message and again when it serializes it; here they are copied once, into the message, and not at all on arrival. What
lies in a file is read into the message.
"""

from __future__ import annotations

from io import BytesIO
from typing import Protocol

from google.protobuf.message import DecodeError

from umbel.errors import FormatError
from umbel.wire.v1.values_pb2 import BlobHead, ReadBlobResponse, WriteBlobRequest

_READ, _WRITE = b"\x0a", b"\x12"  # field 1 and field 2, of bytes


class Source(Protocol):
    """Bytes that lie elsewhere, and come when they are read."""

    def __len__(self) -> int: ...

    def readinto(self, place: memoryview, /) -> int:
        """Read them; gives how many there are now."""
        ...


Piece = bytes | memoryview | Source


def _framed(tag: bytes, data: Piece) -> bytes:
    head = _head(tag, len(data))
    if isinstance(data, bytes | memoryview):
        return b"".join((head, data))
    whole = BytesIO(bytes(len(head) + len(data)))  # getvalue gives these very bytes: no copy
    with whole.getbuffer() as place:
        place[: len(head)] = head
        there = data.readinto(place[len(head) :])
    message = whole.getvalue()
    return message if there == len(data) else _framed(tag, memoryview(message)[len(head) :][:there])


def _head(tag: bytes, size: int) -> bytes:
    length = bytearray(tag)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes(length)


def _data(tag: bytes, message: bytes) -> memoryview | None:
    """The bytes, if the message has nothing else."""
    if message[:1] != tag:
        return None
    size = shift = 0
    for place in range(1, min(6, len(message))):
        size |= (message[place] & 0x7F) << shift
        shift += 7
        if message[place] < 0x80:
            whole = place + 1 + size == len(message)
            return memoryview(message)[place + 1 :] if whole else None
    return None


def read_frame(data: Piece) -> bytes:
    """A serialized ReadBlobResponse, or ReadRunBlobResponse, with this data."""
    return _framed(_READ, data)


def read_data(message: bytes) -> memoryview:
    """The data of a ReadBlobResponse, without a copy.

    Raises:
        FormatError: it is no such message.
    """
    data = _data(_READ, message)
    if data is not None:
        return data
    try:
        return memoryview(ReadBlobResponse.FromString(message).data)
    except DecodeError as error:
        raise FormatError(f"a chunk of a blob cannot be read: {error}") from error


def write_frame(data: Piece) -> bytes:
    """A serialized WriteBlobRequest, or WriteRunBlobRequest, with this data and no head."""
    return _framed(_WRITE, data)


def write_head(head: BlobHead) -> bytes:
    """The first message of WriteBlob, or WriteRunBlob: the head and no data."""
    return WriteBlobRequest(head=head).SerializeToString()


def read_head(message: bytes) -> BlobHead:
    """The head in the first message.

    Raises:
        FormatError: it is no such message, has no head, or has data.
    """
    try:
        request = WriteBlobRequest.FromString(message)
    except DecodeError as error:
        raise FormatError(f"the head of a blob cannot be read: {error}") from error
    if not request.HasField("head") or request.data:
        raise FormatError("the first message of a blob must have its head, and no data")
    return request.head


def write_data(message: bytes) -> memoryview:
    """The data of a WriteBlobRequest behind the first, without a copy.

    Raises:
        FormatError: it is no such message, or has a head.
    """
    data = _data(_WRITE, message)
    if data is not None:
        return data
    try:
        request = WriteBlobRequest.FromString(message)
    except DecodeError as error:
        raise FormatError(f"a chunk of a blob cannot be read: {error}") from error
    if request.HasField("head"):
        raise FormatError("only the first message of a blob has a head")
    return memoryview(request.data)


__all__ = ["Piece", "Source", "read_data", "read_frame", "read_head", "write_data", "write_frame", "write_head"]

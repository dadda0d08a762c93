"""What a run's own process and the server say to each other: JSON, with arrays beside it.

A frame (`umbel.apps.frames`) with a header, JSON, and the bytes of small arrays. A large array is a file that both map:
one that the server has as a blob, or one that the run's process has written for this message.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, final

from umbel.apps.frames import Frame, Garbage, pack
from umbel.arrays import Arrays
from umbel.codec import Json
from umbel.errors import FormatError
from umbel.wire.limits import INLINE


@final
class Message(NamedTuple):
    """One message.

    Attributes:
        header: what is asked or answered.
        value: the JSON; arrays in it stand as their digests.
        arrays: by digest.
    """

    header: Mapping[str, Any]
    value: Json
    arrays: Mapping[str, Arrays]


@final
class Packing:
    """Makes one message.

    Args:
        large: keeps a large array, of this digest, where the other side finds it: gives a word for where that is. "":
            nowhere, so that it goes inside.
    """

    def __init__(self, large: Callable[[Arrays, str], str]) -> None:
        self._large = large
        self._arrays: dict[str, Arrays] = {}
        self._places: dict[str, Any] = {}
        self._parts: list[bytes] = []
        self._size = 0

    def place(self, arrays: Arrays) -> str:
        """Let arrays go with the message; gives their digest."""
        digest = arrays.digest()
        if digest not in self._places:
            raw = arrays.to_bytes()
            where = self._large(arrays, digest) if len(raw) > INLINE else ""
            self._arrays[digest], self._places[digest] = arrays, where or [self._size, len(raw)]
            if not where:
                self._parts.append(bytes(raw))
                self._size += len(raw)
        return digest

    def anew(self) -> Packing:
        """Another one with the same arrays, which are to be kept once more."""
        made = Packing(self._large)
        for arrays in self._arrays.values():
            made.place(arrays)
        return made

    def frame(self, header: Mapping[str, Any], value: Json = None) -> bytes:
        """The message as bytes; `Arrays` in the JSON go with it."""
        text = json.dumps(value, separators=(",", ":"), default=self.place).encode()
        head = {**header, "text": len(text), "arrays": self._places}
        return pack(head, b"".join((text, *self._parts)))


def read(frame: Frame, large: Callable[[str, str], Arrays]) -> Message:
    """The message in a frame.

    Args:
        frame: as it came.
        large: gives the array with this digest that lies where this word says.

    Raises:
        Garbage: it is none.
    """
    try:
        header = dict(frame.header)
        size, places = int(header.pop("text")), header.pop("arrays")
        arrays = {}
        for digest, where in places.items():
            if isinstance(where, str):
                arrays[digest] = large(digest, where)
            else:
                begin, length = int(where[0]) + size, int(where[1])
                arrays[digest] = Arrays.from_bytes(frame.body[begin : begin + length], source=f"arrays {digest[:12]}")
        return Message(header, json.loads(frame.body[:size]), arrays)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError, FormatError) as error:
        raise Garbage(f"it is no message: {error!r:.200}") from error


__all__ = ["Message", "Packing", "read"]

"""Arrays between node and child: small ones inside the frame, large ones as files that both map."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

from umbel import wire
from umbel.arrays import Arrays
from umbel.codec import decode, encode
from umbel.errors import FormatError
from umbel.store.durable import readable_errors, replace_file
from umbel.wire.limits import INLINE, MESSAGE

_ROOM = MESSAGE // 4  # bytes of arrays inside an answer; beside them it has metrics, output and a traceback


def _no_class(path: str) -> bool:
    """A state is plain values."""
    del path
    return False


def keep_file(directory: Path, arrays: Arrays) -> str:
    """Write arrays into a file that is named by their digest; gives that. One copy; not synced.

    The file is written while the digest is computed, so at first it has another name of this form.
    """
    path = directory / secrets.token_hex(32)
    with ThreadPoolExecutor(1) as beside:
        written = beside.submit(replace_file, path, arrays.to_bytes(), sync=False)
        digest = arrays.digest()
        written.result()
    with readable_errors(path):
        path.replace(directory / digest)
    return digest


@final
class Placing:
    """Turns the arrays of one answer into blobs: small ones with their bytes, as long as a message has room for them.

    Args:
        directory: where files go.
    """

    def __init__(self, directory: Path) -> None:
        self._directory, self._room = directory, _ROOM

    def __call__(self, arrays: Arrays) -> wire.Blob:
        """The blob; its bytes lie in a file if they are not inside."""
        raw = arrays.to_bytes()
        if len(raw) > min(INLINE, self._room):
            return wire.Blob(digest=bytes.fromhex(keep_file(self._directory, arrays)), size=len(raw))
        self._room -= len(raw)
        return wire.Blob(digest=bytes.fromhex(arrays.digest()), size=len(raw), content=bytes(raw))


def pack_state(state: Mapping[str, Any], keep: Callable[[Arrays], str]) -> tuple[Any, bytes]:
    """A client's state as JSON and bytes.

    Args:
        state: plain values and `Arrays`.
        keep: writes large arrays into a file and gives its name.
    """
    parts: list[bytes] = []
    places: list[Any] = []

    def place(arrays: Arrays) -> str:
        raw = arrays.to_bytes()
        if len(raw) > INLINE:
            places.append(keep(arrays))
        else:
            parts.append(bytes(raw))
            places.append(len(raw))
        return str(len(places) - 1)

    value = encode(dict(state), place, where="a client's state")
    return {"value": json.dumps(value), "arrays": places}, b"".join(parts)


def unpack_state(packed: Any, body: bytes, fetch: Callable[[str], Arrays]) -> dict[str, Any]:
    """The state that was packed.

    Args:
        packed: the JSON.
        body: the bytes.
        fetch: gives the arrays in a file.

    Raises:
        FormatError: it is none.
    """
    try:
        found: list[Arrays] = []
        begin = 0
        for where in packed["arrays"]:
            if isinstance(where, str):
                found.append(fetch(where))
            else:
                found.append(Arrays.from_bytes(body[begin : begin + int(where)], source="a state"))
                begin += int(where)
        state = decode(json.loads(packed["value"]), lambda name: found[int(name)], allow=_no_class)
    except (KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
        raise FormatError(f"this is no client's state: {error!r}") from error
    if not isinstance(state, dict):
        raise FormatError(f"a client's state is a {type(state).__name__}")
    return state


__all__ = ["keep_file", "pack_state", "unpack_state"]

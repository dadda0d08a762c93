"""How large things may be that come from the other side. docs/wire.md states them, too."""

from __future__ import annotations

import re

from umbel.errors import FormatError

CHUNK = 1 << 20
"""The most bytes in one message of a blob: inside gRPC's default limit, and the fastest size that was measured."""
INLINE = 64 << 10
"""The most bytes of a blob that travel inside another message; the server's store keeps as many in a row."""
MESSAGE = 4 << 20
"""The most bytes of a message: gRPC's own default, so that no client has to set it."""
BLOB = 1 << 40
"""The most bytes of a blob."""
DIGEST = 32  # bytes of one
CONFIG = 256 << 10
DETAILS = 1 << 20
METRICS = 64 << 10
DEPTH = 64  # of nested JSON; a chain of transforms needs about ten
TEXT = 200  # what has a name: a run, a data set, a version
MESSAGE_TEXT = 8 << 10  # for people, in a failure
TRACEBACK = 64 << 10
OUTPUT = 16 << 10
SEED = 1000  # decimal digits
MANY = 256  # entries of a list: extra arrays, attachments, apps, handlers, labels
FUTURE = 1 << 32  # rounds, calls, attempts stay below it
KEEPALIVE = 30.0
"""Seconds between HTTP/2 pings of a node, lest what lies between forget the connection. They are what 5,000 nodes cost
that have nothing to say."""
ANSWERED = 20.0
"""Seconds after which a peer that has not answered a ping is gone."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)
_RUN = re.compile(r"[0-9a-f]{32}", re.ASCII)


def is_name(text: str) -> bool:
    """May a node, a label or a token be called so? 1 to 63 of a-z, 0-9, "-" and "."; no "-" or "." at either end."""
    return _NAME.fullmatch(text) is not None


def check_name(text: str, field: str) -> None:
    """Refuse a name that nothing may have.

    Raises:
        FormatError: names the field.
    """
    if not is_name(text):
        raise FormatError(
            f"{field} is {text[:80]!r}",
            advice='a name is 1 to 63 of a-z, 0-9, "-" and ".", and begins and ends with a letter or a digit',
        )


def check_id(text: str, field: str) -> None:
    """Refuse what is no id of a run or federation: 32 hex digits.

    Raises:
        FormatError: names the field.
    """
    if _RUN.fullmatch(text) is None:
        raise FormatError(f"{field} is {text[:80]!r}, not 32 hex digits")


__all__ = [
    "ANSWERED",
    "BLOB",
    "CHUNK",
    "CONFIG",
    "DEPTH",
    "DETAILS",
    "DIGEST",
    "FUTURE",
    "INLINE",
    "KEEPALIVE",
    "MANY",
    "MESSAGE",
    "MESSAGE_TEXT",
    "METRICS",
    "OUTPUT",
    "SEED",
    "TEXT",
    "TRACEBACK",
    "check_id",
    "check_name",
    "is_name",
]

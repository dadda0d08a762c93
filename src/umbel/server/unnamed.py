"""What nodes have sent and not yet named in an answer: bounded for each node, so that none fills memory or disk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from umbel.aggregate import Expected
from umbel.engine.question import Question
from umbel.wire.limits import INLINE

_BESIDE = 1 << 20  # bytes that a file may have beside its arrays: names, padding
_TIMES = 2  # as much as a node's answers may have; it may have begun one anew


@final
class Unnamed:
    """The blobs that each node has sent, until an answer names them."""

    def __init__(self) -> None:
        self._sent: dict[str, dict[str, int]] = {}  # by node: digest and size, the oldest first

    def add(self, node: str, digest: str, size: int, room: int) -> list[str]:
        """A node sends a blob. If that makes too much, it needs the oldest no more, which are given.

        Args:
            node: its name.
            digest: of the blob.
            size: of the whole, bytes.
            room: bytes that its answers may have together.
        """
        sent = self._sent.setdefault(node, {})
        sent.pop(digest, None)
        size = max(size, INLINE)  # what is smaller need not be sent on its own, and is a file, too
        needless = []
        while sent and sum(sent.values()) + size > _TIMES * room:
            needless.append(next(iter(sent)))
            del sent[needless[-1]]
        sent[digest] = size
        return needless

    def named(self, node: str, digests: Iterable[str]) -> None:
        """An answer of this node names these."""
        sent = self._sent.get(node, {})
        for digest in digests:
            sent.pop(digest, None)
        if not sent:
            self._sent.pop(node, None)


def room_of(question: Question) -> int:
    """Bytes that all blobs of an answer may have together."""
    asked = (question.expected, *question.extra_expected.values())
    return sum(_largest(one) for one in asked if one is not None)


def _largest(expected: Expected) -> int:
    if expected.sent is None or expected.shapes == "free":
        return expected.max_bytes + _BESIDE
    # a change of entries of two bytes may have four; and somebody may have padded each name
    return 2 * expected.sent.nbytes + 2 * len(expected.sent.header) + _BESIDE


__all__ = ["Unnamed", "room_of"]

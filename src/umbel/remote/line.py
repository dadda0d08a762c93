"""A line to a server for programs that wait: its calls, tried again where that is safe, and blobs that go on."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, final

from umbel.arrays import Arrays
from umbel.digest import is_named
from umbel.errors import FormatError, Unreachable
from umbel.link.address import Address

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from umbel import wire

logger = logging.getLogger("umbel")
T = TypeVar("T")
PATIENCE = 3600.0
"""Seconds that a server may be away in the middle of something; then the caller is told."""
_FIRST, _LONGEST = 0.2, 5.0  # seconds between tries
_RESULT = 1 << 22  # characters of a page of a result: what fits into a message
_CHUNK = 1 << 20  # bytes of a blob in one message
_dice = random.SystemRandom()  # the program's own generators are left alone


def add_page(found: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add the next page of a result to those before: rows and failures go on, clients have their own names."""
    for name, items in more.items():
        if "$tuple" in items:
            found[name]["$tuple"] += items["$tuple"]
        else:
            found[name] |= items


@final
class Line:
    """A line to a server; a context manager that closes it.

    Args:
        address: of the server; its secret is the token.
        deadline: seconds that a call with one answer may take.
    """

    def __init__(self, address: Address, *, deadline: float = 30.0) -> None:
        from umbel.link.grpc_blocking import BlockingPersonLink

        self.address = address
        self._link = BlockingPersonLink(address, deadline=deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all calls, and the connection."""
        self._link.close()

    def call(self, name: str, request: Message) -> Any:
        """Make a call that has one answer, once.

        Args:
            name: of the call, as in "ListRuns".
            request: its message.
        """
        return self._link.call(name, request)

    def run(self, run: str) -> tuple[wire.Run, dict[str, Any]]:
        """A run, and what it has come to so far, as the server's tagged JSON; of all pages.

        Args:
            run: its id, the beginning of it, or its name.
        """
        from umbel import wire

        got = self.call("GetRun", wire.GetRunRequest(run=run))
        found = wire.from_json(got.result, "result", _RESULT)
        for page in range(1, got.pages):
            more = self.call("GetRun", wire.GetRunRequest(run=got.run.id, page=page))
            add_page(found, wire.from_json(more.result, "result", _RESULT))
        return got.run, found

    def listed(self, name: str, field: str) -> list[Any]:
        """All pages of a list.

        Args:
            name: of the call, as in "ListRuns".
            field: of its answers, in which the items are.
        """
        from umbel.wire.methods import CONTROL

        found: list[Any] = []
        page, pages = 0, 1
        while page < pages:
            answer = self.call(name, CONTROL[name].request(page=page))
            found += getattr(answer, field)
            page, pages = page + 1, answer.pages
        return found

    def stream(self, name: str, request: Message) -> Iterator[Any]:
        """Make a call that has many answers, once; leaving the loop ends it."""
        return self._link.stream(name, request)

    def write(self, arrays: Arrays) -> None:
        """Have the server keep these arrays; goes on where a broken line has left off."""
        self.write_bytes(bytes.fromhex(arrays.digest()), arrays.to_bytes())

    def write_bytes(self, digest: bytes, data: memoryview) -> None:
        """The same of any bytes, with their digest."""
        from umbel import wire

        def once() -> None:
            there = self.call("StatRunBlob", wire.StatRunBlobRequest(digest=digest))
            while not there.complete:
                head = wire.BlobHead(digest=digest, size=len(data), offset=there.received)
                there = self._link.write_blob(head, _pieces(data, there.received))

        patiently(once)

    def read(self, run: str, digest: str) -> Arrays:
        """The arrays of a run that have this digest; goes on where a broken line has left off.

        Raises:
            NotThere: the run has no such blob.
            FormatError: the bytes that came do not have this digest.
        """
        from umbel import wire

        data = bytearray()

        def once() -> None:
            request = wire.ReadRunBlobRequest(run=run, digest=bytes.fromhex(digest), offset=len(data))
            for piece in self._link.read_blob(request):
                data.extend(piece)

        patiently(once, moved=lambda: len(data))
        if not is_named(bytes.fromhex(digest), data):
            raise FormatError(f"what the server gave as blob {digest[:12]} has another digest")
        return Arrays.from_bytes(data, source=f"blob {digest[:12]}")


def _pieces(data: memoryview, offset: int) -> Iterator[memoryview]:
    for begin in range(offset, len(data), _CHUNK):
        yield data[begin : begin + _CHUNK]


def patiently(
    work: Callable[[], T],
    *,
    patience: float = PATIENCE,
    moved: Callable[[], object] = lambda: None,
) -> T:
    """What work gives, which is tried again, at growing and drawn intervals, while the server is away.

    Args:
        work: may raise `Unreachable`, and may then be done again.
        patience: seconds until the error is let through.
        moved: gives something that changes while work gets on; then patience begins anew.
    """
    since, delay, said, before = time.monotonic(), _FIRST, False, moved()
    while True:
        try:
            return work()
        except Unreachable as error:
            if moved() != before:
                since, delay, said, before = time.monotonic(), _FIRST, False, moved()
            if time.monotonic() - since >= patience:
                raise
            if not said:
                said = True
                logger.warning("server-away: %s; it is tried again for %.0f minutes", error.what, patience / 60)
            threading.Event().wait(delay * _dice.uniform(0.5, 1.0))
            delay = min(2 * delay, _LONGEST)


__all__ = ["PATIENCE", "Line", "add_page", "patiently"]

"""What tests of the server's store share: stores that are closed when a test ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from umbel.store.sql import AnswerRow, OpenExchange, RunRow, ServerStore

RUN = "a" * 32


@contextmanager
def opened(directory: Path, url: str = "", *, now: Callable[[], float] = time.time) -> Iterator[ServerStore]:
    store = ServerStore(url, directory, now=now)
    try:
        yield store
    finally:
        store.close()


def url_of(directory: Path) -> str:
    return f"sqlite:///{directory}/umbel.sqlite"


@contextmanager
def busy(store: ServerStore) -> Iterator[None]:
    """While this lasts the writer is busy, so that all that is given to it is one group."""
    begun, go = threading.Event(), threading.Event()

    def wait(_: object) -> None:
        begun.set()
        assert go.wait(60)

    waiting = store._write(wait)
    try:
        assert begun.wait(60)
        yield
    finally:
        go.set()
        waiting.result()


def with_exchange(store: ServerStore) -> ServerStore:
    """With a run that waits for answers to its first exchange."""
    store.submit(RunRow(id=RUN, key="k", name="run", owner="anna")).result()
    store.open_exchange(RUN, OpenExchange(sequence=1, digest="d", opened=1.0)).result()
    return store


def answer(client: str) -> AnswerRow:
    return AnswerRow(client=client, kind="update")

"""Reads from any thread, which see what is durable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar, final

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from umbel.store.sql.base import Database
from umbel.store.sql.errors import passing, readable

T = TypeVar("T")
_PAUSES = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)  # seconds before each try, if the connection is lost
_AT_ONCE = (0.0,)  # the same in an event loop, which has others to serve: whoever asks may ask again


@final
class Reader:
    """Reads from a database.

    Args:
        database: which.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.name = database.name

    def __call__(self, work: Callable[[Connection], T]) -> T:
        """What the work reads; it is given a connection, and may be done again if that is lost.

        Raises:
            CorruptFile: the database is damaged.
            StoreError: it cannot be read.
        """
        tries = iter(_AT_ONCE if _in_loop() else _PAUSES)
        while True:
            try:
                with self._database.reading.connect() as connection:
                    return work(connection)
            except SQLAlchemyError as error:
                pause = next(tries, None)
                if pause is None or not passing(error):
                    raise readable(error, self.name) from error
                time.sleep(pause)


def _in_loop() -> bool:
    """Is this an event loop's thread?"""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


__all__ = ["Reader"]

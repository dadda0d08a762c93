"""Everything is written by one thread: what waits is written in one transaction, and is durable together.

Each piece of work has its own savepoint, so that one that fails takes nothing else with it. Nobody is told anything
before the transaction is committed. If that fails, all who were in it are told.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, final

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from umbel.errors import InUse, StoreError, UmbelError
from umbel.store.sql.base import Database
from umbel.store.sql.errors import passing, readable, spoils

logger = logging.getLogger("umbel")
T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[Connection], T]
_GROUP = 500  # pieces of work in one transaction; more wait for the next
_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.5, *(1.0,) * 29)  # seconds before each try to connect again: half a minute in all


@final
@dataclass(frozen=True, slots=True)
class _Waiting:
    """Work, and who waits for it. ``then`` is called when it is durable."""

    work: Work[Any]
    then: Callable[[Any], Any] | None
    future: Future[Any]


@final
class GroupWriter:
    """Writes, one group after the other.

    Args:
        database: where to.
        connection: which `Database.claim` gave.
        check: looks at a connection that was claimed anew; raises `InUse` if somebody else has written in between.
        pauses: seconds before each try, if the connection is lost.

    Attributes:
        broken: why nothing can be written any more.
    """

    def __init__(
        self,
        database: Database,
        connection: Connection,
        check: Callable[[Connection], None],
        *,
        pauses: Sequence[float] = _PAUSES,
    ) -> None:
        self._database, self._connection, self._check, self._pauses = database, connection, check, pauses
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._lock, self._closed = threading.Lock(), False
        self._away = False  # is it known that the connection is lost?
        self.broken: UmbelError | None = None
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="umbel-store", daemon=True)
        self._thread.start()

    def submit(self, work: Work[T], then: Callable[[T], R] | None = None) -> Future[R]:
        """Do this work in a transaction; the future is done when it is durable.

        Args:
            work: is given the connection. It may be done twice, if the connection was lost; then the first time did
                not count.
            then: is called in the writer's thread with what the work gave, when that is durable, and gives what the
                future gives; None: the work does.
        """
        future: Future[R] = Future()
        with self._lock:
            if self._closed:
                raise StoreError("the server's store is closed", advice="open it again")
            self._queue.put(_Waiting(work, then, future))
        return future

    def hurry(self) -> None:
        """Wait no more for a connection that is lost: what cannot be written at once fails."""
        self._hurry.set()

    def close(self) -> None:
        """Write what waits, and end the thread."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self.hurry()
        self._thread.join()
        with suppress(SQLAlchemyError):
            self._connection.close()

    # --- in the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        ended = False
        while not ended:
            group, ended = self._next_group()
            if group:
                self._write(group)

    def _next_group(self) -> tuple[list[_Waiting], bool]:
        """All that waits now; and is it the end?"""
        found: list[_Waiting] = []
        one = self._queue.get()
        while one is not None:
            if one.future.set_running_or_notify_cancel():
                found.append(one)
            if len(found) == _GROUP:
                return found, False
            try:
                one = self._queue.get_nowait()
            except Empty:
                return found, False
        return found, True

    def _write(self, group: list[_Waiting]) -> None:
        try:
            if self.broken is not None:
                raise self.broken
            results = self._committed(group)
        except Exception as error:  # noqa: BLE001  # the group ends here; the writer goes on
            for one in group:
                one.future.set_exception(readable(error, self._database.name))
            return
        for one, result in zip(group, results, strict=True):
            if not isinstance(result, _Failed) and one.then is not None:
                try:
                    result = one.then(result)  # noqa: PLW2901
                except Exception as error:  # noqa: BLE001  # it is durable, but who waits must know
                    result = _Failed(error)  # noqa: PLW2901
            if isinstance(result, _Failed):
                one.future.set_exception(readable(result.error, self._database.name))
            else:
                one.future.set_result(result)

    def _committed(self, group: list[_Waiting]) -> list[Any]:
        """What came of each, when that is durable; begins anew if the connection is lost."""
        moment = ""
        tries = iter(self._pauses)
        results: list[Any] = []
        while True:
            try:
                if self._connection.closed or self._connection.invalidated:
                    self._connect_again()
                    if moment and self._database.happened(self._connection, moment):
                        return results
                moment, results = "", []
                self._connection.exec_driver_sql(self._database.begin)
                results = _all(self._connection, group)
                moment = self._database.moment(self._connection)
                self._connection.exec_driver_sql("COMMIT")
                self._say_back()
                return results
            except Exception as error:  # raised again, if it does not pass
                again = passing(error) or isinstance(error, _Taken)
                self._roll_back(lost=passing(error))
                pause = next(tries, None) if again and self.broken is None else None
                self._say_away(error, tried=pause is not None)
                if pause is None or (pause and self._hurry.wait(pause)):
                    raise (error.reason if isinstance(error, _Taken) else error) from error

    def _say_away(self, error: Exception, *, tried: bool) -> None:
        """Once, when there is something to wait for: who looks after the server knows why all stands still."""
        if tried and not self._away:
            self._away = True
            why = error.reason if isinstance(error, _Taken) else readable(error, self._database.name)
            logger.warning("database-away: tried again for half a minute: %s", why)

    def _say_back(self) -> None:
        if self._away:
            self._away = False
            logger.info("database-back: %s answers again", self._database.name)

    def _connect_again(self) -> None:
        try:
            self._connection = self._database.claim()
        except InUse as error:  # perhaps by our own connection, that the database still takes for alive
            raise _Taken(error) from error
        try:
            self._check(self._connection)
        except UmbelError as error:
            self.broken = error
            logger.error("database-taken: nothing can be written any more: %s", error)
            raise

    def _roll_back(self, *, lost: bool) -> None:
        try:
            if not lost:
                self._connection.exec_driver_sql("ROLLBACK")
        except SQLAlchemyError:  # SQLite has done it already; PostgreSQL does it when the connection ends
            lost = self._connection.dialect.name != "sqlite"
        if lost:
            with suppress(SQLAlchemyError):
                self._connection.invalidate()
            with suppress(SQLAlchemyError):
                self._connection.close()


@final
class _Taken(Exception):
    """The lock is not free, or not yet."""

    def __init__(self, reason: InUse) -> None:
        super().__init__(str(reason))
        self.reason = reason


@final
@dataclass(frozen=True, slots=True)
class _Failed:
    """What stands in the place of a result."""

    error: BaseException


def _all(connection: Connection, group: list[_Waiting]) -> list[Any]:
    if len(group) == 1:  # what fails alone needs no savepoint
        return [group[0].work(connection)]
    results: list[Any] = []
    for one in group:
        connection.exec_driver_sql("SAVEPOINT one")
        try:
            results.append(one.work(connection))
        except Exception as error:  # a piece of work ends here
            if spoils(error):
                raise
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT one")
            results.append(_Failed(error))
        connection.exec_driver_sql("RELEASE SAVEPOINT one")
    return results


__all__ = ["GroupWriter", "Work"]

"""A server's database in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, final

from sqlalchemy import URL, Connection, NullPool, create_engine, event, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from umbel.errors import InUse, StoreError, UsageError
from umbel.store.durable import readable_errors
from umbel.store.lock import DirectoryLock
from umbel.store.sql.errors import readable, sqlstate

_LOCK = 0x756D6265  # "umbe": tells our locks from those of others in the same database
_PATIENCE = "3s"  # for the lock; the connection of a server that was killed is noticed within that
_BUSY = "55P03"
_ENCODING = "UTF8"  # people and nodes have names in all scripts
# If the machine of the database is gone, or the way to it, the system would notice within a quarter of an hour, and who
# waits for an answer with it. This is of libpq: seconds, and milliseconds.
_NOTICES: Mapping[str, int] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
# If the machine of a server is gone, the database lets go of its lock within two minutes, and not hours.
_KEEPALIVE = ("tcp_keepalives_idle = 30", "tcp_keepalives_interval = 10", "tcp_keepalives_count = 6")


@final
class Postgres:
    """The database at an address. Whoever writes holds an advisory lock on the same connection.

    So if the connection is lost the lock is, and what is written holds the lock.

    Raises:
        InUse: another process works in the directory of the blobs.
        UsageError: the driver is not installed.
    """

    begin = "BEGIN"

    def __init__(self, url: URL, directory: Path) -> None:
        url = url.set(drivername="postgresql+psycopg")
        self.name = url.render_as_string(hide_password=True)
        with readable_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            try:
                held.callback(DirectoryLock(directory).close)
            except InUse as error:
                raise InUse(
                    f"{directory} is in use by another server", advice="stop it, or give this one another directory"
                ) from error
            try:
                given: dict[str, Any] = {name: value for name, value in _NOTICES.items() if name not in url.query}
                given["client_encoding"] = _ENCODING
                self._writing = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=given)
                self.reading = create_engine(url, pool_size=5, max_overflow=20, connect_args=given)
            except ImportError as error:
                raise UsageError(
                    "PostgreSQL needs a driver that is not installed", advice="pip install 'umbel[postgres]'"
                ) from error
            event.listen(self._writing, "connect", _set_up)
            self._held = held.pop_all()

    def claim(self) -> Connection:
        """Connect, and take the lock.

        Raises:
            StoreError: it cannot hold all text.
        """
        try:
            connection = self._writing.connect()
        except SQLAlchemyError as error:
            raise error if isinstance(error, DBAPIError) else readable(error, self.name) from error
        try:
            self._check_encoding(connection)
            connection.exec_driver_sql(f"SET lock_timeout = '{_PATIENCE}'")
            connection.execute(text(f"SELECT pg_advisory_lock({_LOCK}, hashtext(current_schema()))"))
            connection.exec_driver_sql("RESET lock_timeout")
        except BaseException as error:
            connection.close()
            if sqlstate(error) == _BUSY:
                raise InUse(
                    f"{self.name} is in use by another server",
                    advice="stop that server, or give this one another database; it belongs to one process",
                ) from error
            raise
        return connection

    def _check_encoding(self, connection: Connection) -> None:
        found = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        if found != _ENCODING:
            raise StoreError(
                f"{self.name} has the encoding {found}, in which not all names can be written",
                advice="make one for it: CREATE DATABASE umbel ENCODING 'UTF8' TEMPLATE template0",
            )

    def before_upgrade(self, found: str) -> None:
        """Nothing: if a step fails, the database takes back all of them."""

    def moment(self, connection: Connection) -> str:
        """The number of the transaction."""
        return str(connection.exec_driver_sql("SELECT txid_current()").scalar_one())

    def happened(self, connection: Connection, moment: str) -> bool:
        """Whether the database has committed it. It has ended: it held the lock that this connection has now."""
        found = connection.execute(text("SELECT txid_status(:moment)"), {"moment": int(moment)}).scalar_one()
        return bool(found == "committed")

    def close(self) -> None:
        """Let go of it."""
        self.reading.dispose()
        self._writing.dispose()
        self._held.close()


def _set_up(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        for setting in ("synchronous_commit = on", "statement_timeout = 0", *_KEEPALIVE):  # as long as a step takes
            cursor.execute(f"SET {setting}")
    if not connection.autocommit:
        connection.commit()


__all__ = ["Postgres"]

"""What the store needs of a database."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import Connection, Engine


class Database(Protocol):
    """One of the databases that the store can live in.

    Attributes:
        name: how it is called in errors; without a password.
        reading: for reads, from any thread.
        begin: what begins a transaction that writes.
    """

    name: str
    reading: Engine
    begin: str

    def claim(self) -> Connection:
        """A connection for the one who writes, which no other process has at the same time.

        A transaction on it is begun and ended in words. Asked again, after the connection was lost, it gives a new one.

        Raises:
            InUse: another process has it.
            StoreError: the database cannot be opened.
        """

    def before_upgrade(self, found: str) -> None:
        """The schema is about to change; "": it is about to be made."""

    def moment(self, connection: Connection) -> str:
        """A mark of the transaction that is open, for `happened`."""

    def happened(self, connection: Connection, moment: str) -> bool:
        """Was the transaction with this mark, of a connection that was lost, committed?"""

    def close(self) -> None:
        """Let go of it."""


__all__ = ["Database"]

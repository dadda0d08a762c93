"""A server's database and its directory belong together: in the directory are its keys and its models.

The database is made first, then the directory of the blobs, then the first token. So a start that was killed, wherever
it was, leaves nothing that is refused here.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, select

from umbel.errors import StoreError
from umbel.store.sql.blobs import BLOBS
from umbel.store.sql.tables import token


def check_new(name: str, directory: Path) -> None:
    """Refuse to begin a database in the directory of a server that has one.

    Args:
        name: of the database, which is empty.
        directory: of the server.

    Raises:
        StoreError: it has another database.
    """
    if (directory / BLOBS).exists():
        raise StoreError(
            f"{directory} is a server's directory, and {name} is not its database, but empty",
            advice="give the --database, or UMBEL_DATABASE, that it had; if that is lost, restore a backup; "
            "to begin anew, give another --dir",
        )


def check_old(connection: Connection, name: str, directory: Path) -> None:
    """Refuse to go on with a database without the directory that it has.

    Args:
        connection: to the database.
        name: of it.
        directory: of the server.

    Raises:
        StoreError: its directory is another.
    """
    if not (directory / BLOBS).exists() and connection.execute(select(token.c.name).limit(1)).first() is not None:
        raise StoreError(
            f"{name} is the database of a server whose models and keys are not in {directory}",
            advice=f"give the --dir that it had, or its backup; if both are lost, make {directory / BLOBS}: "
            "then all nodes have to join again with new tickets",
        )


__all__ = ["check_new", "check_old"]

"""The database is made, or brought up to date, when it is opened.

Alembic is imported when there are steps to take: a server that starts again has none, and nodes wait for it.
"""

from __future__ import annotations

import re
from importlib.resources import as_file, files
from typing import final

from sqlalchemy import Connection, inspect

from umbel.errors import NewerSchema, StoreError
from umbel.store.sql.tables import metadata

HEAD = "head"
_STEPS = files("umbel.store.sql") / "migrations"
_STEP = re.compile(r"v(\d{4})_\w+\.py")  # how the file of a step is called
_TABLE = "alembic_version"


@final
class Schema:
    """The steps that this version of Umbel knows."""

    def __init__(self) -> None:
        found = [_STEP.fullmatch(file.name) for file in (_STEPS / "versions").iterdir()]
        self._known = {step[1] for step in found if step is not None}
        self.newest = max(self._known)

    def found(self, connection: Connection, name: str) -> str:
        """Which step the database has reached; "" if it is empty. Nothing is changed.

        Args:
            connection: to it.
            name: how to call it in errors.

        Raises:
            NewerSchema: another version of Umbel has taken a step that this one does not know.
            StoreError: it holds tables that are not ours.
        """
        there = inspect(connection)
        heads: list[str] = []
        if there.has_table(_TABLE):
            heads = [row[0] for row in connection.exec_driver_sql(f"SELECT version_num FROM {_TABLE}")]
        if len(heads) > 1 or any(head not in self._known for head in heads):
            raise NewerSchema(
                f"{name} was written by a newer version of Umbel: its schema is {', '.join(heads)}, "
                f"and this version knows {self.newest}",
                advice="install that version; or restore the backup that was made before it",
            )
        if heads:
            return heads[0]
        taken = sorted(set(there.get_table_names()) & set(metadata.tables))
        if taken:
            raise StoreError(
                f"{name} is not a database of Umbel, and has a table {taken[0]!r} that is not ours",
                advice="give the address of an empty database",
            )
        return ""

    def upgrade(self, connection: Connection, found: str, to: str = HEAD) -> None:
        """Take the steps that are missing, in the transaction that is open.

        Args:
            connection: to the database, in a transaction.
            found: what the method of that name gave.
            to: the last step to take.
        """
        from alembic.migration import MigrationContext
        from alembic.operations import Operations
        from alembic.script import ScriptDirectory

        with as_file(_STEPS) as directory:
            script = ScriptDirectory(str(directory))
            context = MigrationContext.configure(connection)
            steps = list(script.iterate_revisions(to, found or "base"))
            with Operations.context(context):
                for step in reversed(steps):
                    step.module.upgrade()
                    context.stamp(script, step.revision)


__all__ = ["HEAD", "Schema"]

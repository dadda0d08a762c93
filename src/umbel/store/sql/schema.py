"""The database is made, or brought up to date, when it is opened."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import final

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from umbel.errors import NewerSchema, StoreError
from umbel.store.sql.tables import metadata

HEAD = "head"


@final
class Schema:
    """The steps that this version of Umbel knows."""

    def __init__(self) -> None:
        with as_file(files("umbel.store.sql") / "migrations") as directory:
            self._script = ScriptDirectory(str(directory))
            self.newest = self._script.get_current_head() or ""
            self._known = {step.revision: step for step in self._script.walk_revisions()}

    def found(self, connection: Connection, name: str) -> str:
        """Which step the database has reached; "" if it is empty. Nothing is changed.

        Args:
            connection: to it.
            name: how to call it in errors.

        Raises:
            NewerSchema: another version of Umbel has taken a step that this one does not know.
            StoreError: it holds tables that are not ours.
        """
        heads = MigrationContext.configure(connection).get_current_heads()
        if len(heads) > 1 or any(head not in self._known for head in heads):
            raise NewerSchema(
                f"{name} was written by a newer version of Umbel: its schema is {', '.join(heads)}, "
                f"and this version knows {self.newest}",
                advice="install that version; or restore the backup that was made before it",
            )
        if heads:
            return heads[0]
        taken = sorted(set(inspect(connection).get_table_names()) & set(metadata.tables))
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
        context = MigrationContext.configure(connection)
        steps = list(self._script.iterate_revisions(to, found or "base"))
        with Operations.context(context):
            for step in reversed(steps):
                self._known[step.revision].module.upgrade()
                context.stamp(self._script, step.revision)


__all__ = ["HEAD", "Schema"]

"""Events of runs; which program a node runs, and is it connected; and blobs that nobody needs are found at once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add them. Of nodes that enrolled before it is not known what they run, until they come back."""
    op.create_table(
        "event",
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_event"),
        sa.ForeignKeyConstraint(["run"], ["run.id"], "fk_event_run"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_event_run_number", "event", ["run", "number"])
    op.add_column("node", sa.Column("program", sa.Text, nullable=False, server_default=""))
    op.add_column("node", sa.Column("connected", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_index("ix_reference_digest", "reference", ["digest"])


__all__ = ["branch_labels", "depends_on", "down_revision", "revision", "upgrade"]

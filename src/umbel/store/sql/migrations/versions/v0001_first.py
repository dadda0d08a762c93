"""The first tables: nodes, people, runs, exchanges, commits and blobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    _make_people()
    _make_runs()
    _make_rounds()
    _make_blobs()


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _whole(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _time(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=False)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False)


def _bytes(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def _of_run(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["run"], ["run.id"], f"fk_{table}_run")


def _make_people() -> None:
    op.create_table(
        "federation",
        sa.Column("one", sa.Integer, autoincrement=False, nullable=False),
        _text("id"),
        _time("made"),
        _whole("opened"),
        sa.PrimaryKeyConstraint("one", name="pk_federation"),
        sa.CheckConstraint("one = 1", "ck_federation_one"),
    )
    op.create_table(
        "node",
        _text("name"),
        _bytes("public_key"),
        _text("labels"),
        _time("enrolled"),
        _time("seen"),
        _flag("revoked"),
        sa.PrimaryKeyConstraint("name", name="pk_node"),
        sa.UniqueConstraint("public_key", name="uq_node_public_key"),
    )
    op.create_table(
        "ticket",
        _text("id"),
        _bytes("secret"),
        _whole("uses"),
        _whole("used"),
        _time("expires"),
        _text("creator"),
        _flag("revoked"),
        sa.PrimaryKeyConstraint("id", name="pk_ticket"),
        sa.UniqueConstraint("secret", name="uq_ticket_secret"),
    )
    op.create_table(
        "token",
        _text("name"),
        _bytes("secret"),
        _text("role"),
        _time("created"),
        _time("expires"),
        _flag("revoked"),
        sa.PrimaryKeyConstraint("name", name="pk_token"),
        sa.UniqueConstraint("secret", name="uq_token_secret"),
    )
    op.create_table(
        "audit",
        sa.Column("number", _NUMBER, nullable=False),
        _time("time"),
        _text("who"),
        _text("action"),
        _text("target"),
        _text("details"),
        sa.PrimaryKeyConstraint("number", name="pk_audit"),
        sqlite_autoincrement=True,
    )


def _make_runs() -> None:
    op.create_table(
        "run",
        _text("id"),
        _text("key"),
        _text("name"),
        _text("owner"),
        _text("status"),
        _text("reason"),
        sa.Column("rounds", sa.BigInteger),
        _whole("round"),
        _time("submitted"),
        _time("started"),
        _time("ended"),
        _text("submission"),
        _text("nodes"),
        _text("labels"),
        _text("dataset"),
        _text("app"),
        sa.PrimaryKeyConstraint("id", name="pk_run"),
        sa.UniqueConstraint("owner", "key", name="uq_run_owner_key"),
    )
    op.create_table(
        "exchange",
        _text("run"),
        _whole("sequence"),
        _text("digest"),
        _time("opened"),
        _text("population"),
        _text("roster"),
        _flag("waiting"),
        sa.PrimaryKeyConstraint("run", "sequence", name="pk_exchange"),
        _of_run("exchange"),
    )
    op.create_table(
        "answer",
        sa.Column("number", _NUMBER, nullable=False),
        _text("run"),
        _whole("sequence"),
        _text("client"),
        _whole("attempt"),
        _text("kind"),
        _text("content"),
        _text("blobs"),
        _flag("state"),
        _time("arrived"),
        sa.PrimaryKeyConstraint("number", name="pk_answer"),
        sa.UniqueConstraint("run", "sequence", "client", name="uq_answer_run_sequence_client"),
        _of_run("answer"),
    )


def _make_rounds() -> None:
    op.create_table(
        "record",
        _text("run"),
        _whole("sequence"),
        _whole("round"),
        _whole("call"),
        _text("content"),
        sa.PrimaryKeyConstraint("run", "sequence", name="pk_record"),
        _of_run("record"),
    )
    op.create_table(
        "round_commit",
        _text("run"),
        _whole("round"),
        _whole("sequence"),
        _text("content"),
        sa.Column("clients", sa.Text),
        sa.Column("state", sa.Text),
        sa.PrimaryKeyConstraint("run", "round", name="pk_round_commit"),
        _of_run("round_commit"),
    )
    op.create_table(
        "state",
        _text("run"),
        _text("client"),
        _whole("sequence"),
        sa.PrimaryKeyConstraint("run", "client", "sequence", name="pk_state"),
        _of_run("state"),
    )


def _make_blobs() -> None:
    op.create_table(
        "blob",
        _text("digest"),
        _whole("size"),
        sa.Column("content", sa.LargeBinary),
        sa.PrimaryKeyConstraint("digest", name="pk_blob"),
    )
    op.create_table(
        "reference",
        _text("run"),
        _text("kind"),
        _whole("number"),
        _text("digest"),
        sa.PrimaryKeyConstraint("run", "kind", "number", "digest", name="pk_reference"),
        _of_run("reference"),
        sa.ForeignKeyConstraint(["digest"], ["blob.digest"], "fk_reference_digest"),
    )


__all__ = ["branch_labels", "depends_on", "down_revision", "revision", "upgrade"]

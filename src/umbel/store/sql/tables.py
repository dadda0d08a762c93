"""The tables, as the newest migration leaves them; see ``migrations/versions``.

    federation   one row: who we are
    node, ticket, token, audit          nodes and people, and what they did
    run, event                          runs, and what happened in them
    exchange, answer                    what is under way: dropped when its record or its commit is there
    record, round_commit, state         what is finished: `umbel.engine.ports.Record`, `Commit`, clients' states
    blob, reference                     bytes by digest, and who needs them

Times are seconds since 1970. Trees of values are JSON as text: they are read whole, by us.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)
NUMBER = BigInteger().with_variant(Integer, "sqlite")  # there only INTEGER counts by itself

federation = Table(
    "federation",
    metadata,
    Column("one", Integer, CheckConstraint("one = 1", name="one"), primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False),
    Column("made", Double, nullable=False),
    Column("opened", BigInteger, nullable=False),  # how often a server has opened it: tells one from the next
)

node = Table(
    "node",
    metadata,
    Column("name", Text, primary_key=True),
    Column("public_key", LargeBinary, nullable=False, unique=True),
    Column("labels", Text, nullable=False),
    Column("enrolled", Double, nullable=False),
    Column("seen", Double, nullable=False),
    Column("revoked", Boolean, nullable=False),
    Column("program", Text, nullable=False, server_default=""),
    Column("connected", Boolean, nullable=False, server_default=false()),
)

ticket = Table(
    "ticket",
    metadata,
    Column("id", Text, primary_key=True),
    Column("secret", LargeBinary, nullable=False, unique=True),
    Column("uses", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),
    Column("expires", Double, nullable=False),
    Column("creator", Text, nullable=False),
    Column("revoked", Boolean, nullable=False),
)

token = Table(
    "token",
    metadata,
    Column("name", Text, primary_key=True),
    Column("secret", LargeBinary, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("revoked", Boolean, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("number", NUMBER, primary_key=True),
    Column("time", Double, nullable=False),
    Column("who", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("details", Text, nullable=False),
    sqlite_autoincrement=True,
)

run = Table(
    "run",
    metadata,
    Column("id", Text, primary_key=True),
    Column("key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("rounds", BigInteger),
    Column("round", BigInteger, nullable=False),
    Column("submitted", Double, nullable=False),
    Column("started", Double, nullable=False),
    Column("ended", Double, nullable=False),
    Column("submission", Text, nullable=False),
    Column("nodes", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("app", Text, nullable=False),
    UniqueConstraint("owner", "key"),
)

event = Table(
    "event",
    metadata,
    Column("number", NUMBER, primary_key=True),
    Column("run", Text, ForeignKey("run.id"), nullable=False),
    Column("time", Double, nullable=False),
    Column("kind", Text, nullable=False),
    Column("content", Text, nullable=False),
    Index(None, "run", "number"),
    sqlite_autoincrement=True,
)

exchange = Table(
    "exchange",
    metadata,
    Column("run", Text, ForeignKey("run.id"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("opened", Double, nullable=False),
    Column("population", Text, nullable=False),
    Column("roster", Text, nullable=False),
    Column("waiting", Boolean, nullable=False),  # for answers; false once a later exchange is open
)

answer = Table(
    "answer",
    metadata,
    Column("number", NUMBER, primary_key=True),  # the order of arrival
    Column("run", Text, ForeignKey("run.id"), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("client", Text, nullable=False),
    Column("attempt", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("blobs", Text, nullable=False),
    Column("state", Boolean, nullable=False),
    Column("arrived", Double, nullable=False),
    UniqueConstraint("run", "sequence", "client"),
)

record = Table(
    "record",
    metadata,
    Column("run", Text, ForeignKey("run.id"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("round", BigInteger, nullable=False),
    Column("call", BigInteger, nullable=False),
    Column("content", Text, nullable=False),
)

round_commit = Table(
    "round_commit",
    metadata,
    Column("run", Text, ForeignKey("run.id"), primary_key=True),
    Column("round", BigInteger, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("content", Text, nullable=False),
    Column("clients", Text),
    Column("state", Text),
)

state = Table(
    "state",
    metadata,
    Column("run", Text, ForeignKey("run.id"), primary_key=True),
    Column("client", Text, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),  # the newest counts; others go with the next commit
)

blob = Table(
    "blob",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("content", LargeBinary),  # null: it lies in a file
)

reference = Table(
    "reference",
    metadata,
    Column("run", Text, ForeignKey("run.id"), primary_key=True),
    Column("kind", Text, primary_key=True),  # `values.Holding`
    Column("number", BigInteger, primary_key=True),  # a sequence, a round, or 0
    Column("digest", Text, ForeignKey("blob.digest"), primary_key=True),
    Index(None, "digest"),
)

OF_A_RUN = (event, answer, exchange, record, round_commit, state, reference)  # they go with it

__all__ = [
    "NUMBER",
    "OF_A_RUN",
    "answer",
    "audit",
    "blob",
    "event",
    "exchange",
    "federation",
    "metadata",
    "node",
    "record",
    "reference",
    "round_commit",
    "run",
    "state",
    "ticket",
    "token",
]

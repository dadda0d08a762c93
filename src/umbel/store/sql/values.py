"""What goes into the server's store and comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, final

INLINE = 1 << 16  # bytes of a blob that lies in a row of the database; a larger one is a file

Status = Literal["queued", "running", "waiting", "finished", "stopped", "failed"]
AnswerKind = Literal["update", "metrics", "failure"]
Verdict = Literal["accepted", "repeated", "late"]
Holding = Literal["submission", "exchange", "answer", "record", "commit", "best", "opening"]
ACTIVE = frozenset({"queued", "running", "waiting"})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """A node that has enrolled.

    Attributes:
        name: what it is called; unique.
        public_key: Ed25519, 32 bytes; unique.
        labels: known to samplers and people.
        enrolled, seen: seconds since 1970.
        revoked: may it no longer open a session?
        program: what runs there, for people.
        connected: was it connected when that was written down last? A server that starts again waits for those.
    """

    name: str
    public_key: bytes
    labels: Mapping[str, str] = field(default_factory=dict)
    enrolled: float = 0.0
    seen: float = 0.0
    revoked: bool = False
    program: str = ""
    connected: bool = False


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TicketRow:
    """What lets nodes enrol.

    Attributes:
        id: how people call it.
        secret: SHA-256 of the secret.
        uses, used: how many nodes may enrol with it, and how many have.
        expires: seconds since 1970.
        creator: who made it.
        revoked: was it taken back?
    """

    id: str
    secret: bytes = field(repr=False)
    uses: int
    used: int = 0
    expires: float
    creator: str = ""
    revoked: bool = False


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """What lets a person in.

    Attributes:
        name: whose it is; unique.
        secret: SHA-256 of the secret.
        role: operator, runner or viewer.
        created, expires: seconds since 1970; it never expires if 0.
        revoked: was it taken back?
    """

    name: str
    secret: bytes = field(repr=False)
    role: str
    created: float = 0.0
    expires: float = 0.0
    revoked: bool = False

    def valid(self, now: float) -> bool:
        """Does it let its owner in?"""
        return not self.revoked and (not self.expires or self.expires > now)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """Who did what; rows are added, and never changed.

    Attributes:
        number: rising, with gaps.
        time: seconds since 1970.
        who: a person's token, or "node NAME".
        action: a stable word, such as "run-submitted".
        target: to what it was done.
        details: more of it.
    """

    number: int
    time: float
    who: str
    action: str
    target: str
    details: Mapping[str, Any]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run.

    Attributes:
        id: 32 hex digits.
        key: chosen by who submits it; the same key of the same owner is the same run.
        name: for people.
        owner: who submitted it.
        status: where it stands. ``reason`` says why, or for whom it waits.
        rounds: how many it is to have; None: the app knows.
        round: the last one committed.
        submitted, started, ended: seconds since 1970; 0: not yet.
        submission: what is to be run, as JSON.
        nodes, labels: which nodes may take part; all, if both are empty.
        dataset: which of a node's data sets.
        app: what runs at the nodes.
    """

    id: str
    key: str
    name: str
    owner: str
    status: Status = "queued"
    reason: str = ""
    rounds: int | None = None
    round: int = 0
    submitted: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    submission: str = field(default="null", repr=False)
    nodes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    dataset: str = ""
    app: Mapping[str, Any] = field(default_factory=dict)


@final
@dataclass(frozen=True, slots=True)
class Kept:
    """A blob that is there, or comes with what names it.

    Attributes:
        digest: of its bytes, in hex.
        size: bytes.
        content: the bytes, if they are at most `INLINE`; else None, and they lie in a file.
    """

    digest: str
    size: int
    content: bytes | None = field(default=None, repr=False)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OpenExchange:
    """An exchange that is under way.

    Attributes:
        sequence: its number in the run.
        digest: of what is asked, and of whom; the same exchange has the same.
        opened: seconds since 1970.
        population, roster: who was there, and who is asked, as JSON.
    """

    sequence: int
    digest: str
    opened: float
    population: str = field(default="null", repr=False)
    roster: str = field(default="null", repr=False)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """What a client answered in an exchange.

    Attributes:
        client: its name.
        attempt: how often its task was begun, from 1.
        kind: what it is.
        content: the answer without its arrays, as JSON.
        blobs: digests of its arrays.
        state: has the client kept a new state?
        arrived: seconds since 1970.
    """

    client: str
    attempt: int = 1
    kind: AnswerKind
    content: str = field(default="null", repr=False)
    blobs: tuple[str, ...] = ()
    state: bool = False
    arrived: float = 0.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRow:
    """A finished exchange of the open round.

    Attributes:
        round, call: the n-th call of the round.
        sequence: the exchange's number in the run.
        content: as JSON.
    """

    round: int
    call: int
    sequence: int
    content: str = field(repr=False)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRow:
    """A committed round.

    Attributes:
        round: the last one in it.
        sequence: the number of its last exchange.
        content: what is kept of every commit, as JSON.
        clients: single clients' metrics, as JSON; of the last evaluation only.
        state: what a run goes on with, as JSON; of the last two commits only.
    """

    round: int
    sequence: int
    content: str = field(repr=False)
    clients: str | None = field(default=None, repr=False)
    state: str | None = field(default=None, repr=False)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """Something that happened in a run, for people.

    Attributes:
        number: rising, with gaps.
        time: seconds since 1970.
        kind: a stable word.
        content: more of it.
    """

    number: int
    time: float
    kind: str
    content: Mapping[str, Any]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What `sweep` removed.

    Attributes:
        blobs: how many that nothing named any more.
        bytes: how large they were.
        incoming: how many unfinished uploads.
    """

    blobs: int
    bytes: int
    incoming: int


__all__ = [
    "ACTIVE",
    "INLINE",
    "AnswerKind",
    "AnswerRow",
    "AuditRow",
    "CommitRow",
    "EventRow",
    "Holding",
    "Kept",
    "NodeRow",
    "OpenExchange",
    "RecordRow",
    "RunRow",
    "Status",
    "Swept",
    "TicketRow",
    "TokenRow",
    "Verdict",
]

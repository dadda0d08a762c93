"""Who may do what: roles, and the secrets by which people and new nodes are known.

    operator    everything
    runner      sees runs and nodes; submits runs; stops, resumes, removes and fetches its own
    viewer      sees runs and nodes: status, metrics, logs; no models

Every call is denied that the table `ROLES` does not permit. A secret is shown once, when it is made; what is kept is
its SHA-256. It has 128 random bits, so that a hash that is slow on purpose would protect nothing more.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, final, get_args

from umbel.arguments import number, whole
from umbel.errors import NotAllowed, UsageError
from umbel.store.sql.values import TicketRow, TokenRow
from umbel.wire.limits import TEXT

Role = Literal["operator", "runner", "viewer"]
ORDER: Final[tuple[Role, ...]] = get_args(Role)
"""The roles; each may do what those after it may."""
SERVER, NODE = "server", "node "
"""Who did it, in the audit trail, where no person did; behind the second stands the node's name."""
SECRET = 16
"""Bytes of a secret; an address has room for so many."""

ROLES: Final[Mapping[str, Role]] = {
    "GetServer": "viewer",
    "SubmitRun": "runner",
    "ListRuns": "viewer",
    "GetRun": "viewer",
    "WatchRun": "viewer",
    "StopRun": "runner",
    "ResumeRun": "runner",
    "RemoveRun": "runner",
    "ListNodes": "viewer",
    "ChangeNode": "operator",
    "CreateTicket": "operator",
    "ListTickets": "operator",
    "RevokeTicket": "operator",
    "CreateToken": "operator",
    "ListTokens": "operator",
    "RevokeToken": "operator",
    "ReadAudit": "operator",
    "ReadRunBlob": "runner",
    "StatRunBlob": "runner",
    "WriteRunBlob": "runner",
}
"""The least role for each call of `ControlService`. What is not here nobody may do."""


@final
@dataclass(frozen=True, slots=True)
class Person:
    """Who calls.

    Attributes:
        name: of the token; owns the runs that it submits.
        role: "operator", "runner" or "viewer".
        expires: when the token ends, seconds since 1970; 0: never.
    """

    name: str
    role: str
    expires: float = 0.0


def permit(person: Person, method: str) -> None:
    """Refuse what a person's role does not permit; whose run it is about is looked at by `check_own`.

    Args:
        person: who calls.
        method: of ControlService, as in "StopRun".

    Raises:
        NotAllowed: says which role is needed.
    """
    needed = ROLES.get(method)
    if needed is None:
        raise NotAllowed(f"nobody may call {method[:80]!r}", advice="update the server, or this program")
    if person.role not in ORDER or ORDER.index(person.role) > ORDER.index(needed):
        raise NotAllowed(
            f"{person.name!r}, a {person.role}, may not call {method}: that needs the role {needed}",
            advice=f"ask the operator of the server for a token with the role {needed}",
        )


def owns(person: Person, owner: str) -> bool:
    """May this person do everything with the owner's runs?"""
    return person.role == "operator" or (person.role == "runner" and person.name == owner)


def check_own(person: Person, owner: str, what: str) -> None:
    """Refuse what is another's, but to an operator.

    Args:
        person: who calls.
        owner: whose it is.
        what: what it is, for people, as in "run 1a2b3c4d".

    Raises:
        NotAllowed: it belongs to somebody else.
    """
    if not owns(person, owner):
        raise NotAllowed(
            f"{what} belongs to {owner!r}, and {person.name!r} is a {person.role}",
            advice=f"ask {owner!r}, or an operator: others may look at a run only",
        )


def new_secret() -> str:
    """A new secret, as text: 22 characters of A-Z, a-z, 0-9, "-" and "_"."""
    return base64.urlsafe_b64encode(secrets.token_bytes(SECRET)).rstrip(b"=").decode()


def secret_of(text: str) -> bytes:
    """The 16 bytes of a secret, as an address carries them.

    Raises:
        UsageError: it is none.
    """
    try:
        secret = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        secret = b""
    if len(secret) != SECRET:
        raise UsageError("this is no secret of a ticket or a token", advice="copy the whole address again")
    return secret


def hashed(secret: str | bytes) -> bytes:
    """What is kept of a secret: SHA-256 of its text, 32 bytes."""
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).digest()


def new_token(name: str, role: str, *, seconds: float, now: float) -> tuple[str, TokenRow]:
    """A token for a person: its secret, to be shown once, and what is kept.

    Args:
        name: of the person.
        role: "operator", "runner" or "viewer".
        seconds: how long it lasts; 0: until it is revoked.
        now: seconds since 1970.

    Raises:
        UsageError: there is no such role, or an argument makes no sense.
    """
    if role not in ORDER:
        raise UsageError(f"there is no role {role!r}", advice=f"take one of {', '.join(ORDER)}")
    if not name.strip() or not name.isprintable() or len(name) > TEXT:
        raise UsageError(f"a token is called {name[:80]!r}", advice=f"give a name of at most {TEXT} characters")
    if name == SERVER or name.startswith(NODE):
        raise UsageError(
            f"nobody can be called {name[:80]!r}, as the audit trail calls the server, or a node",
            advice="give another name",
        )
    seconds = number(seconds, "the token's time", least=0)
    secret = new_secret()
    expires = now + seconds if seconds else 0.0
    return secret, TokenRow(name=name, secret=hashed(secret), role=role, created=now, expires=expires, revoked=False)


def new_ticket(*, uses: int, seconds: float, creator: str, now: float) -> tuple[str, TicketRow]:
    """A ticket for new nodes: its secret, to be shown once, and what is kept.

    Args:
        uses: how many nodes may join with it.
        seconds: how long it lasts.
        creator: who has made it.
        now: seconds since 1970.

    Raises:
        UsageError: an argument makes no sense.
    """
    uses, seconds = whole(uses, "the ticket's uses"), number(seconds, "the ticket's time", above=0)
    secret = new_secret()
    return secret, TicketRow(
        id=secrets.token_hex(4),
        secret=hashed(secret),
        uses=uses,
        used=0,
        expires=now + seconds,
        creator=creator,
        revoked=False,
    )


__all__ = [
    "NODE",
    "ORDER",
    "ROLES",
    "SECRET",
    "SERVER",
    "Person",
    "Role",
    "check_own",
    "hashed",
    "new_secret",
    "new_ticket",
    "new_token",
    "owns",
    "permit",
    "secret_of",
]

"""Sessions of nodes: in memory, so that a server that starts again has none.

Nothing is kept of a challenge that nobody has answered rightly, and a few hundred bytes of a session.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

from umbel import wire
from umbel.errors import Unauthenticated
from umbel.link.identity import PublicKey

WINDOW = 1024
"""Counters up to so far behind the highest are still accepted, each once: calls overtake each other."""
GOOD_FOR = 60.0
"""Seconds that a challenge is good for."""
_NONCE, _TIME, _MAC = 16, 8, 16  # bytes of a challenge
_AGAIN = "open a new session"


@final
@dataclass(slots=True)
class _Session:
    node: str
    key: PublicKey
    highest: int = 0
    used: int = 0  # bit i: the counter `highest - i` was used


@final
@dataclass(slots=True)
class Sessions:
    """The sessions of one server.

    Args:
        secret: makes challenges recognisable; random, and new in each process.
        token: gives so many random bytes.
    """

    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    token: Callable[[int], bytes] = secrets.token_bytes
    _open: dict[bytes, _Session] = field(default_factory=dict)
    _of: dict[str, bytes] = field(default_factory=dict)
    _answered: dict[bytes, float] = field(default_factory=dict)  # challenges, oldest first, and when they end

    def __len__(self) -> int:
        return len(self._open)

    def challenge(self, name: str, now: float) -> bytes:
        """Bytes for this node to sign, good for one session within a minute. Nothing is kept of them.

        Args:
            name: the node's name; whether there is such a node is not said here.
            now: seconds since 1970.
        """
        head = self.token(_NONCE) + int((now + GOOD_FOR) * 1000).to_bytes(_TIME, "big")
        return head + self._mac(name, head)

    def _mac(self, name: str, head: bytes) -> bytes:
        return hmac.digest(self.secret, head + name.encode(), "sha256")[:_MAC]

    def open(self, name: str, challenge: bytes, signature: bytes, key: bytes, now: float) -> bytes:
        """Open a session; the node's session before ends.

        Args:
            name: the node's name.
            challenge: as the node sent it.
            signature: by the node, of the challenge.
            key: the public key that the node enrolled with.
            now: seconds since 1970.

        Returns:
            What names the session from now on, 16 bytes.

        Raises:
            Unauthenticated: the challenge is not ours, too old or used, or the signature is not by this key.
        """
        head, mac = challenge[:-_MAC], challenge[-_MAC:]
        if len(head) != _NONCE + _TIME or not hmac.compare_digest(mac, self._mac(name, head)):
            raise Unauthenticated("this challenge is not from this server", advice="ask for another, and sign that")
        until = int.from_bytes(head[_NONCE:], "big") / 1000
        if now > until or challenge in self._answered:
            raise Unauthenticated(
                "this challenge is used up, or older than a minute", advice="ask for another, and sign that"
            )
        owner = PublicKey(key)
        if not owner.has_signed(wire.challenge_bytes(name, challenge), signature):
            raise Unauthenticated(
                f"node {name!r} has signed with another key than it enrolled with",
                advice="start it with the directory that it has joined with; if that is lost, ask the operator for a "
                f"ticket, and to give the name free (umbel nodes rename {name} OTHER), and join in a new directory",
            )
        for old in [c for c, end in self._answered.items() if end < now]:
            del self._answered[old]
        self._answered[challenge] = until
        self.end(name)
        session = self.token(wire.SESSION_SIZE)
        self._open[session], self._of[name] = _Session(name, owner), session
        return session

    def verify(self, session: bytes, counter: int, method: str, body: bytes, signature: bytes) -> str:
        """Whose call this is.

        Args:
            session: as it came with the call.
            counter: the same.
            method: the path of the call.
            body: the bytes of its first message.
            signature: of all these.

        Returns:
            The node's name.

        Raises:
            Unauthenticated: there is no such session, the signature is wrong, or the counter was used.
        """
        found = self._open.get(session)
        if found is None:
            raise Unauthenticated("the session is over: the server, or this node, has started anew", advice=_AGAIN)
        if not 1 <= counter < 1 << 63:
            raise Unauthenticated(f"the call of node {found.node!r} has no counter that is possible", advice=_AGAIN)
        behind = found.highest - counter
        if behind >= WINDOW or (behind >= 0 and found.used >> behind & 1):
            raise Unauthenticated(f"call {counter} of node {found.node!r} was made before", advice=_AGAIN)
        if not found.key.has_signed(wire.signed_bytes(session, counter, method, body), signature):
            raise Unauthenticated(
                f"the signature of call {counter} of node {found.node!r} is wrong",
                advice="something on the way changes what the node sends, such as a proxy that looks inside; " + _AGAIN,
            )
        # only now: who cannot sign must not be able to use up counters
        if behind < 0:
            found.used = (found.used << -behind if -behind < WINDOW else 0) & (1 << WINDOW) - 1
            found.highest, behind = counter, 0
        found.used |= 1 << behind
        return found.node

    def node(self, session: bytes) -> str | None:
        """Whose session it is; None: it is over."""
        found = self._open.get(session)
        return found.node if found is not None else None

    def session(self, name: str) -> bytes | None:
        """The session of a node, if one is open."""
        return self._of.get(name)

    def end(self, name: str) -> bytes | None:
        """End the session of a node, as when it is revoked; returns the session, if there was one."""
        session = self._of.pop(name, None)
        if session is not None:
            del self._open[session]
        return session


__all__ = ["GOOD_FOR", "WINDOW", "Sessions"]

"""The bytes that a node signs. A signature of one kind never stands for another: each begins with its own words."""

from __future__ import annotations

import hashlib

CALL = b"umbel.v1 call\n"
SESSION = b"umbel.v1 session\n"
SESSION_SIZE = 16
CHALLENGE_SIZE = 64  # at most


def signed_bytes(session: bytes, counter: int, method: str, body: bytes) -> bytes:
    """What the signature of a call covers.

    In this order, with nothing between: "umbel.v1 call" and a line feed (14 bytes); the session (16 bytes); the counter
    (8 bytes, most significant first); SHA-256 of the message as it is sent (32 bytes); the method, such as
    "/umbel.v1.NodeService/Report".

    Args:
        session: as the server named it.
        counter: of the call in the session; each is used once, from 1.
        method: the path of the call.
        body: the serialized message; the first one where the node sends several.
    """
    return b"".join((CALL, session, counter.to_bytes(8, "big"), hashlib.sha256(body).digest(), method.encode()))


def challenge_bytes(name: str, challenge: bytes) -> bytes:
    """What the signature in OpenSession covers: "umbel.v1 session", the name and the challenge, a line feed between."""
    return b"".join((SESSION, name.encode(), b"\n", challenge))


__all__ = ["CALL", "CHALLENGE_SIZE", "SESSION", "SESSION_SIZE", "challenge_bytes", "signed_bytes"]

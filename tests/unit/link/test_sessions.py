"""Sessions: who may open one, and which calls are believed."""

from __future__ import annotations

import pytest

from umbel import wire
from umbel.errors import Unauthenticated
from umbel.link.identity import Identity
from umbel.link.sessions import GOOD_FOR, WINDOW, Sessions

ME, OTHER = Identity.make(), Identity.make()
PATH, BODY = "/umbel.v1.NodeService/Report", b"body"
NOW = 1_700_000_000.0


def opened(sessions: Sessions, name: str = "berlin", me: Identity = ME, now: float = NOW) -> bytes:
    challenge = sessions.challenge(name, now)
    return sessions.open(name, challenge, me.sign(wire.challenge_bytes(name, challenge)), me.public, now)


def call(sessions: Sessions, session: bytes, counter: int, me: Identity = ME) -> str:
    return sessions.verify(session, counter, PATH, BODY, me.sign(wire.signed_bytes(session, counter, PATH, BODY)))


def test_a_session_is_opened_once_for_each_challenge() -> None:
    sessions = Sessions()
    challenge = sessions.challenge("berlin", NOW)
    assert len(challenge) <= 64
    signature = ME.sign(wire.challenge_bytes("berlin", challenge))
    session = sessions.open("berlin", challenge, signature, ME.public, NOW + GOOD_FOR)
    assert (len(session), sessions.node(session), sessions.session("berlin")) == (16, "berlin", session)
    with pytest.raises(Unauthenticated, match="used up"):
        sessions.open("berlin", challenge, signature, ME.public, NOW + 1)


def test_a_challenge_grows_old() -> None:
    sessions = Sessions()
    challenge = sessions.challenge("berlin", NOW)
    signature = ME.sign(wire.challenge_bytes("berlin", challenge))
    with pytest.raises(Unauthenticated, match="older than a minute"):
        sessions.open("berlin", challenge, signature, ME.public, NOW + GOOD_FOR + 1)


@pytest.mark.parametrize("change", ["name", "server", "bit", "short", "long", "empty"])
def test_a_challenge_that_is_not_ours_is_refused(change: str) -> None:
    sessions = Sessions()
    name = "paris" if change == "name" else "berlin"
    challenge = (Sessions() if change == "server" else sessions).challenge("berlin", NOW)
    changed = {
        "bit": bytes([challenge[0] ^ 1]) + challenge[1:],
        "short": challenge[:-1],
        "long": challenge + b"x",
        "empty": b"",
    }
    challenge = changed.get(change, challenge)
    signature = ME.sign(wire.challenge_bytes(name, challenge))
    with pytest.raises(Unauthenticated, match="not from this server"):
        sessions.open(name, challenge, signature, ME.public, NOW)
    assert len(sessions) == 0


def test_only_the_key_that_is_enrolled_opens_a_session() -> None:
    sessions = Sessions()
    first = opened(sessions)
    challenge = sessions.challenge("berlin", NOW)
    signature = OTHER.sign(wire.challenge_bytes("berlin", challenge))
    with pytest.raises(Unauthenticated, match="another key") as refused:
        sessions.open("berlin", challenge, signature, ME.public, NOW)
    assert "umbel nodes rename berlin" in refused.value.advice  # a name that was revoked alone stays taken
    assert sessions.session("berlin") == first  # who cannot sign ends nobody's session
    sessions.open("berlin", challenge, ME.sign(wire.challenge_bytes("berlin", challenge)), ME.public, NOW)


def test_a_new_session_ends_the_one_before() -> None:
    sessions = Sessions()
    first = opened(sessions)
    second = opened(sessions)
    with pytest.raises(Unauthenticated, match="the session is over"):
        call(sessions, first, 1)
    assert call(sessions, second, 1) == "berlin"
    assert sessions.end("berlin") == second
    assert sessions.end("berlin") is None
    assert sessions.node(second) is None
    with pytest.raises(Unauthenticated):
        call(sessions, second, 2)


def test_a_server_that_starts_again_knows_no_session() -> None:
    session = opened(Sessions())
    with pytest.raises(Unauthenticated, match="started anew"):
        call(Sessions(), session, 1)


def test_counters_are_good_once_within_the_window() -> None:
    sessions = Sessions()
    session = opened(sessions)
    for counter in (5, 3, 1, 4, 2 * WINDOW, 2 * WINDOW - 1, WINDOW + 1, 5 * WINDOW):
        assert call(sessions, session, counter) == "berlin"
        with pytest.raises(Unauthenticated, match="made before"):
            call(sessions, session, counter)
    for counter in (5, 6, 2 * WINDOW, 4 * WINDOW):
        with pytest.raises(Unauthenticated, match="made before"):
            call(sessions, session, counter)
    assert call(sessions, session, 4 * WINDOW + 1) == "berlin"
    for counter in (0, -1, 1 << 63):
        with pytest.raises(Unauthenticated, match="no counter"):
            sessions.verify(session, counter, PATH, BODY, bytes(64))


def test_who_cannot_sign_uses_up_no_counter() -> None:
    sessions = Sessions()
    session = opened(sessions)
    with pytest.raises(Unauthenticated, match="signature"):
        call(sessions, session, 1 << 40, OTHER)
    assert call(sessions, session, 1) == "berlin"


@pytest.mark.parametrize("what", ["session", "counter", "method", "body", "signature", "length"])
def test_each_part_of_a_call_is_signed(what: str) -> None:
    sessions = Sessions()
    other, session = opened(sessions, "paris"), opened(sessions)
    signature = ME.sign(wire.signed_bytes(session, 1, PATH, BODY))
    given = {"session": session, "counter": 1, "method": PATH, "body": BODY, "signature": signature}
    changed = {
        "session": other,
        "counter": 2,
        "method": PATH + "s",
        "body": BODY + b"x",
        "signature": bytes([signature[0] ^ 1]) + signature[1:],
        "length": signature[:-1],
    }
    with pytest.raises(Unauthenticated, match="signature"):
        sessions.verify(**{**given, "signature" if what == "length" else what: changed[what]})  # type: ignore[arg-type]
    assert sessions.verify(**given) == "berlin"  # type: ignore[arg-type]  # as given


def test_little_is_kept() -> None:
    sessions = Sessions()
    for number in range(200):
        sessions.challenge("berlin", NOW)  # nobody answers these
        opened(sessions, "berlin", now=NOW + number * 10)
    assert len(sessions) == 1
    assert len(sessions._answered) <= GOOD_FOR / 10 + 2

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.errors import NotAllowed, UsageError
from umbel.server.people import (
    ORDER,
    ROLES,
    Person,
    check_own,
    hashed,
    new_secret,
    new_ticket,
    new_token,
    owns,
    permit,
    secret_of,
)

PROTO = Path(__file__).parents[3] / "proto" / "umbel" / "v1" / "control.proto"
METHODS = re.findall(r"^  rpc (\w+)\(", PROTO.read_text(encoding="utf-8"), flags=re.MULTILINE)
FOR_EVERYBODY = {"GetServer", "ListRuns", "GetRun", "WatchRun", "ListNodes"}
FOR_RUNNERS = FOR_EVERYBODY | {
    "SubmitRun",
    "StopRun",
    "ResumeRun",
    "RemoveRun",
    "ReadRunBlob",
    "StatRunBlob",
    "WriteRunBlob",
}
ALLOWED = {"viewer": FOR_EVERYBODY, "runner": FOR_RUNNERS, "operator": set(METHODS)}


def refusal(role: str, method: str) -> str:
    """What is said; "" if it is permitted."""
    try:
        permit(Person("ada", role), method)
    except NotAllowed as error:
        return str(error)
    return ""


def test_the_table_has_the_calls_of_the_proto() -> None:
    assert sorted(ROLES) == sorted(METHODS)
    assert len(METHODS) == 20


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("role", ORDER)
def test_every_pair_of_role_and_call(role: str, method: str) -> None:
    said = refusal(role, method)
    assert (said == "") == (method in ALLOWED[role])
    if said:
        assert f"needs the role {ROLES[method]}" in said


@given(st.text(max_size=20), st.one_of(st.sampled_from(METHODS), st.text(max_size=20)))
def test_what_is_in_no_table_is_denied(role: str, method: str) -> None:
    if role not in ORDER or method not in METHODS:
        assert refusal(role, method)


@pytest.mark.parametrize("method", ["", "getserver", "Enrol", "Subscribe", "GetServer "])
def test_an_operator_too_is_denied_what_is_not_there(method: str) -> None:
    assert "nobody may call" in refusal("operator", method)


def test_who_owns() -> None:
    assert owns(Person("ada", "runner"), "ada")
    assert not owns(Person("ada", "runner"), "grace")
    assert owns(Person("ada", "operator"), "grace")
    assert not owns(Person("ada", "viewer"), "ada")  # whose token is now one for looking only
    check_own(Person("ada", "runner"), "ada", "run 1")
    with pytest.raises(NotAllowed, match="run 1 belongs to 'grace', and 'ada' is a runner"):
        check_own(Person("ada", "runner"), "grace", "run 1")


def test_a_person_is_named() -> None:
    permit(Person("ada", "runner"), "SubmitRun")
    with pytest.raises(NotAllowed, match="'ada', a runner, may not call CreateToken"):
        permit(Person("ada", "runner"), "CreateToken")


def test_a_secret_is_random_and_is_not_what_is_kept() -> None:
    secret, token = new_token("ada", "runner", seconds=60.0, now=1000.0)
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", secret)
    assert token.secret == hashlib.sha256(secret.encode()).digest() == hashed(secret)
    assert (token.name, token.role, token.created, token.expires, token.revoked) == ("ada", "runner", 1000, 1060, False)
    assert secret not in repr(token)
    assert len({new_secret() for _ in range(100)}) == 100


def test_a_token_that_does_not_expire() -> None:
    assert new_token("ada", "operator", seconds=0, now=1000.0)[1].expires == 0.0


def test_a_ticket() -> None:
    secret, ticket = new_ticket(uses=3, seconds=60.0, creator="ada", now=1000.0)
    assert (ticket.uses, ticket.used, ticket.expires, ticket.creator, ticket.revoked) == (3, 0, 1060, "ada", False)
    assert ticket.secret == hashed(secret)
    assert secret not in ticket.id


def test_an_address_carries_a_secret() -> None:
    secret = new_secret()
    assert len(secret_of(secret)) == 16
    for wrong in ("", secret[:-2], secret + "AA", "?" * 22, "é" * 22):
        with pytest.raises(UsageError, match="is no secret"):
            secret_of(wrong)


@pytest.mark.parametrize(
    ("name", "role", "seconds"),
    [("ada", "admin", 0), ("ada", "", 0), ("", "viewer", 0), ("a\nb", "viewer", 0), ("ada", "viewer", -1)],
)
def test_what_is_no_token(name: str, role: str, seconds: float) -> None:
    with pytest.raises(UsageError):
        new_token(name, role, seconds=seconds, now=0.0)


@pytest.mark.parametrize("name", ["server", "node berlin"])
def test_nobody_is_called_as_the_audit_trail_calls_programs(name: str) -> None:
    with pytest.raises(UsageError, match="nobody can be called"):
        new_token(name, "operator", seconds=0, now=0.0)
    new_token("nodes", "operator", seconds=0, now=0.0)


@pytest.mark.parametrize(("uses", "seconds"), [(0, 60.0), (-1, 60.0), (1, 0.0), (1, float("inf"))])
def test_what_is_no_ticket(uses: int, seconds: float) -> None:
    with pytest.raises(UsageError):
        new_ticket(uses=uses, seconds=seconds, creator="ada", now=0.0)

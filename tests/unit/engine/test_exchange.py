from __future__ import annotations

import pytest

from umbel.engine.exchange import Arrived, Close, DeadlinePassed, Drop, Exchange, Failed, Fold, Lease, Lost, Revoke
from umbel.errors import Failure, UsageError


def failure(client: str) -> Failure:
    return Failure(client=client, round=1, kind="train", code="client-failed", message="said no")


def test_an_empty_cohort_closes_at_once_and_its_quorum_is_met() -> None:
    assert Exchange([]).step() == [Close(folded=(), failures=(), revoked=(), met=True)]


def test_only_the_unbroken_prefix_is_folded() -> None:
    exchange = Exchange(["b", "a", "c"])
    assert exchange.step() == [Lease((("a", 1), ("b", 1), ("c", 1)))]
    assert exchange.step([Arrived([("b", 1)])]) == []
    assert exchange.step([Arrived([("a", 1)])]) == [Fold((("a", 1, 0), ("b", 1, 1)))]


def test_a_spare_takes_the_place_of_a_failed_client_behind_the_cohort() -> None:
    exchange = Exchange(["a", "b"], ["z", "y"])
    exchange.step()
    assert exchange.step([Failed("a", 1, failure("a"))]) == [Lease((("z", 1),))]
    assert exchange.step([Arrived([("z", 1)]), Arrived([("b", 1)])]) == [Fold((("b", 1, 1), ("z", 1, 2)))]
    assert exchange.step() == [Close(folded=("b", "z"), failures=(failure("a"),), revoked=(), met=True)]


def test_a_lost_client_is_asked_again_with_the_next_attempt_and_its_first_answer_is_stale() -> None:
    exchange = Exchange(["a"], attempts=2)
    exchange.step()
    assert exchange.step([Lost("a", 1, failure("a"))]) == [Lease((("a", 2),))]
    assert exchange.step([Arrived([("a", 1)])]) == [Drop("a", 1)]
    assert exchange.step([Arrived([("a", 2)])]) == [Fold((("a", 2, 0),))]


def test_a_bound_exchange_has_no_spares_and_no_second_answer() -> None:
    exchange = Exchange(["a", "b"], ["z"], bound=True, quorum=0.5)
    exchange.step()
    assert exchange.step([Lost("a", 1, failure("a"))]) == []
    assert exchange.places == ("a", "b")


def test_the_deadline_revokes_who_did_not_answer() -> None:
    exchange = Exchange(["a", "b"], quorum=0.5)
    exchange.step()
    assert exchange.step([Arrived([("b", 1)]), DeadlinePassed()]) == [Fold((("b", 1, 1),))]
    assert exchange.step() == [
        Revoke(("a",)),
        Close(folded=("b",), failures=(), revoked=("a",), met=True),
    ]


def test_an_exchange_that_can_no_longer_reach_its_quorum_ends_early() -> None:
    exchange = Exchange(["a", "b", "c"], quorum=0.9)
    exchange.step()
    out = exchange.step([Failed("b", 1, failure("b"))])
    assert out == [Revoke(("a", "c")), Close(folded=(), failures=(failure("b"),), revoked=("a", "c"), met=False)]


def test_in_a_race_the_first_answers_count() -> None:
    exchange = Exchange(["a", "b"], ["z"], race=True)
    assert exchange.step() == [Lease((("a", 1), ("b", 1), ("z", 1)))]
    exchange.step([Arrived([("z", 1)])])
    exchange.step([Arrived([("b", 1)])])
    *_, close = exchange.step()
    assert isinstance(close, Close)
    assert close.folded == ("b", "z")
    assert close.revoked == ("a",)


def test_a_client_refused_while_it_is_folded_is_a_failure() -> None:
    exchange = Exchange(["a", "b"], quorum=0.5)
    exchange.step()
    exchange.step([Arrived([("a", 1)]), Arrived([("b", 1)])])
    (close,) = exchange.step([Failed("a", 1, failure("a"))])
    assert isinstance(close, Close)
    assert close.folded == ("b",)


def test_a_snapshot_counts() -> None:
    exchange = Exchange(["a", "b", "c"])
    exchange.step()
    exchange.step([Arrived([("b", 1)])])
    s = exchange.snapshot()
    assert (s.leased, s.waiting, s.folded, s.failed, s.closed) == (2, 1, 0, 0, False)


def test_a_client_cannot_be_twice_in_a_cohort() -> None:
    with pytest.raises(UsageError, match="twice"):
        Exchange(["a"], ["a"])


def test_a_quorum_is_a_share() -> None:
    with pytest.raises(UsageError, match="quorum"):
        Exchange(["a"], quorum=2)


def test_whether_the_deadline_or_failures_ended_it() -> None:
    slow, failed = Exchange(["a", "b"]), Exchange(["a", "b"])
    for exchange in (slow, failed):
        exchange.step()
    failed.step([Failed("b", 1, failure("b"))])
    assert not failed.overtaken
    slow.step([Arrived([("a", 1)])])
    assert not slow.overtaken
    (*_, close) = slow.step([DeadlinePassed()])
    assert isinstance(close, Close)
    assert (close.met, close.revoked, slow.overtaken) == (False, ("b",), True)

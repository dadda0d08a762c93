"""Edges of the exchange machine at which a line of it could be wrong unnoticed."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.engine.exchange import Arrived, Close, DeadlinePassed, Exchange, Failed, Lost
from umbel.errors import Failure


def failure(client: str) -> Failure:
    return Failure(client=client, round=1, kind="train", code="client-failed", message="said no")


def folded_at_the_deadline(cohort: int, answers: int, quorum: float) -> bool:
    names = [f"{i:04}" for i in range(cohort)]
    exchange = Exchange(names, quorum=quorum)
    exchange.step()
    exchange.step([*(Arrived([(name, 1)]) for name in names[:answers]), DeadlinePassed()])
    (*_, close) = exchange.step()
    assert isinstance(close, Close)
    return close.met


@given(st.integers(1, 300), st.integers(1, 100))
def test_a_quorum_is_a_share_without_rounding_errors(cohort: int, percent: int) -> None:
    """0.1 of 30 is 3, though in floating point it is a little more."""
    need = -(-Fraction(percent, 100) * cohort // 1)
    assert folded_at_the_deadline(cohort, int(need), percent / 100)
    assert need == 1 or not folded_at_the_deadline(cohort, int(need) - 1, percent / 100)


@pytest.mark.parametrize(
    "late", [Arrived([("a", 1)]), Failed("a", 1, failure("a")), Lost("b", 1, failure("b")), DeadlinePassed()]
)
def test_after_the_close_nothing_changes_any_more(late: object) -> None:
    exchange = Exchange(["a", "b"], quorum=0.5)
    exchange.step()
    exchange.step([Arrived([("a", 1)]), DeadlinePassed()])
    exchange.step()
    before = exchange.snapshot()
    assert before.closed
    exchange.step([late])  # type: ignore[list-item]  # an event
    assert exchange.snapshot() == before

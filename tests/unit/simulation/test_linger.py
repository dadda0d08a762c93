"""When the main process waits for one more large update, and when not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umbel.simulation.linger import Linger

LARGE = 100 << 20


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans())))
def test_who_waited_in_vain_waits_again_only_after_several_came_at_once(history: list[tuple[int, bool]]) -> None:
    linger, pays = Linger(), True
    for there, comes in history:
        pays = pays or there > 1
        assert (linger.seconds(LARGE, there) > 0) == pays
        if pays:
            pays = comes
            linger.note(came=comes)


@given(st.integers(0, 1 << 40), st.integers(1, 8))
def test_the_wait_is_short_beside_the_fold(size: int, there: int) -> None:
    assert Linger().seconds(size, there) <= size * 0.3e-9, "seconds that a byte takes on a machine of today"


def test_for_small_updates_nobody_waits() -> None:
    assert Linger().seconds(1 << 16, 1) == 0

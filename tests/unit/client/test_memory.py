from __future__ import annotations

import gc

import pytest

from umbel.client.memory import uncollected


def test_garbage_is_collected_afterwards_as_before() -> None:
    before, seen = gc.get_threshold(), []

    @uncollected()
    def fail() -> None:
        seen.append((gc.get_threshold()[0], gc.isenabled()))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [(0, True)]
    assert gc.get_threshold() == before


def test_what_takes_long_is_collected() -> None:
    before = gc.get_threshold()
    with uncollected() as collect:
        collect()
        assert gc.get_threshold() == before
    assert gc.get_threshold() == before


def test_what_user_code_makes_of_it_stays() -> None:
    before = gc.get_threshold()
    try:
        with uncollected():
            gc.disable()
            gc.set_threshold(5)
        assert not gc.isenabled()
        assert gc.get_threshold()[0] == 5
    finally:
        gc.enable()
        gc.set_threshold(*before)

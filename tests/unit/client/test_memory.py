from __future__ import annotations

import gc

import pytest

from umbel.client.memory import uncollected


def test_garbage_is_collected_afterwards_as_before() -> None:
    seen = []

    @uncollected()
    def fail() -> None:
        seen.append(gc.isenabled())
        raise ZeroDivisionError

    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [False]
    assert gc.isenabled()


def test_who_collects_none_goes_on_so() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()

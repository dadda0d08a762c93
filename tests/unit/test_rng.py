from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel import rng

NAMES = st.lists(st.one_of(st.text(max_size=4), st.integers(-5, 500)), max_size=4)


@given(st.integers(0, 2**70), NAMES, st.integers(0, 2**70), NAMES)
def test_streams_are_the_same_for_the_same_names_only(
    seed: int, names: list[Any], other_seed: int, other_names: list[Any]
) -> None:
    first = rng.derive(seed, *names)
    assert first == rng.derive(seed, *names)
    assert 0 <= first < 2**128
    same = (seed, names) == (other_seed, other_names)
    assert (first == rng.derive(other_seed, *other_names)) is same
    assert rng.stream(seed, *names).random() == rng.stream(seed, *names).random()


@pytest.mark.parametrize(
    ("one", "other"),
    [((0, "a", "b"), (0, "ab")), ((0, "1"), (0, 1)), ((1, "1"), (11,)), ((0, ""), (0,)), ((0, "s1:a"), (0, "a"))],
)
def test_names_that_look_alike_are_others(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert rng.derive(*one) != rng.derive(*other)


def test_numpys_whole_numbers_name_the_same_stream() -> None:
    assert rng.derive(3, "round", np.int64(7)) == rng.derive(3, "round", 7)  # type: ignore[arg-type]


def test_a_stream_is_the_same_on_every_machine() -> None:
    """Written down once: a change here changes every run that anyone has repeated."""
    assert rng.derive(7, "cohort", 3) == 0x62F926A0EFE5B87C0AAD985740FED281
    assert rng.stream(7, "cohort", 3).integers(0, 1000, 4).tolist() == [697, 649, 546, 9]


@pytest.mark.parametrize("name", [1.5, None, b"a"])
def test_other_names_are_refused(name: Any) -> None:
    with pytest.raises(TypeError):
        rng.derive(1, name)

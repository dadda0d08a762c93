from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.client.failures import shortened, trace, words


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RecursionError

    __repr__ = __str__


def caught(function: Any) -> BaseException:
    try:
        function()
    except BaseException as error:  # noqa: BLE001  # what is tested
        return error
    raise AssertionError


def test_an_exception_in_words() -> None:
    assert words(ValueError("too low")) == "ValueError: too low"
    assert words(KeyError("w")) == "KeyError: 'w'"
    assert words(SystemExit()) == "SystemExit"
    assert words(Unprintable()) == "Unprintable: (its text cannot be shown: __str__ raised RecursionError)"
    assert len(words(ValueError("x" * 10**7))) < 600


def test_a_traceback_shows_the_cause_and_is_not_longer_than_people_read() -> None:
    def inner() -> None:
        raise KeyError("w")

    def outer() -> None:
        try:
            inner()
        except KeyError as error:
            raise ValueError("no weights") from error

    text = trace(caught(outer))
    assert text.startswith("Traceback")
    assert text.index("KeyError: 'w'") < text.index("direct cause") < text.index("ValueError: no weights")
    assert "in inner" in text

    def one(n: int) -> None:
        two(n)

    def two(n: int) -> None:
        one(n + 1)

    deep = trace(caught(lambda: one(0)))
    assert len(deep) < 20_000
    assert "characters are left out here" in deep
    assert deep.rstrip().endswith("RecursionError: maximum recursion depth exceeded")


def test_an_exception_that_cannot_be_shown_has_a_traceback_all_the_same() -> None:
    def fail() -> None:
        raise Unprintable

    assert "in fail" in trace(caught(fail))


def test_an_exception_that_was_never_raised() -> None:
    assert trace(ValueError("x")).strip() == "ValueError: x"


@given(st.text(), st.integers(0, 20), st.integers(0, 20))
def test_a_text_keeps_its_beginning_and_its_end(text: str, head: int, tail: int) -> None:
    short = shortened(text, head, tail)
    assert short == text or (
        short.startswith(text[:head]) and short.endswith(text[len(text) - tail :]) and "left out here" in short
    )
    assert len(text) > head + tail or short == text


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_every_kind(kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind("why")

    assert words(caught(fail)) == f"{kind.__name__}: why"
    assert f"{kind.__name__}: why" in trace(caught(fail))

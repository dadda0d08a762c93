from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import umbel
from umbel.client.context import ClientInfo
from umbel.client.failures import shortened, trace, words
from umbel.client.work import Bench
from umbel.engine.question import Question
from umbel.errors import Failure, UmbelError


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


def test_a_traceback_begins_with_the_users_first_line_wherever_ours_called_it() -> None:
    """A callback is called in one place for a simulation and in another for a server, and fails the same."""

    def callback(result: Any) -> None:
        raise ValueError("told to")

    client, server = umbel.ClientApp(), umbel.ServerApp(model={"w": 0.0}, strategy=umbel.fed_avg(), rounds=1)

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        return umbel.Update(model=model)

    on = umbel.Simulation(clients=1)
    (failed,) = umbel.run(server, client, on=on, callbacks=[callback]).failures
    assert failed.traceback.splitlines()[1].endswith("in callback")


def test_an_exception_that_cannot_be_shown_has_a_traceback_all_the_same() -> None:
    def fail() -> None:
        raise Unprintable

    assert "in fail" in trace(caught(fail))


def test_what_could_do_something_to_a_terminal_is_written_out() -> None:
    """A server does so, too, and is to say the same as a simulation."""

    def fail() -> None:
        raise ValueError("one\n\ttwo \x1b[2J \ud800 \u20ac \x00")

    error = caught(fail)
    assert words(error) == "ValueError: one\n\ttwo \\x1b[2J \\ud800 \u20ac \\x00"
    assert trace(error).endswith("ValueError: one\n\ttwo \\x1b[2J \\ud800 \u20ac \\x00\n")


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


class Interrupting(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


class Careless(UmbelError):
    def __init__(self) -> None: ...  # and so it has no text


class Codeless(UmbelError):
    code = None  # type: ignore[assignment]


class OwnText(str):
    def __len__(self) -> int:
        raise LookupError


class Texting(ValueError):
    def __str__(self) -> str:
        return OwnText("read-only")


class Hidden(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise KeyboardInterrupt


class Nameless(Exception, metaclass=Hidden):
    @property
    def __traceback__(self) -> Any:  # type: ignore[override]
        raise KeyboardInterrupt


def failure_of(error: BaseException) -> Failure:
    client = umbel.ClientApp()

    @client.query("ask")
    def ask(model: Any, ctx: Any) -> umbel.Update:
        raise error

    question = Question(kind="query", name="ask", seed=1, round=1, call=1, model=None)
    failure = Bench(client, 1).do(question, ClientInfo(name="a"), {})
    assert isinstance(failure, Failure)
    return failure


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Interrupting(), "Interrupting: (its text cannot be shown: __str__ raised KeyboardInterrupt)"),
        (Careless(), "Careless: (its text cannot be shown: __str__ raised AttributeError)"),
        (Texting(), "Texting: read-only\n  What to do: what arrives is read-only"),
        (Nameless("why"), "an exception without a name: why"),
        (LookupError("\ud800!"), r"LookupError: \ud800!"),
    ],
    ids=["interrupts", "has no text", "has a text of its own", "has no name", "half a pair"],
)
def test_whatever_an_exception_does_it_becomes_a_failure(error: BaseException, message: str) -> None:
    failure = failure_of(error)
    assert message in failure.message
    assert failure.code in ("client-failed", "error")
    for text in (failure.message, failure.traceback, failure.code):
        assert type(text) is str
        assert text.encode()


def test_an_error_of_ours_is_said_as_it_is_though_it_has_no_code() -> None:
    failure = failure_of(Codeless("no such ward", advice="name another"))
    assert (failure.message, failure.code) == ("no such ward\n  What to do: name another", "client-failed")

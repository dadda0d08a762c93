from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from umbel.store.writer import GoOn, Writer


@pytest.fixture
def writer() -> Iterator[Writer]:
    made = Writer()
    yield made
    made.close()


def test_the_caller_goes_on(writer: Writer) -> None:
    gate, done = threading.Event(), list[str]()

    def work(_: GoOn) -> None:
        gate.wait()
        done.append("written")

    writer.begin(work)
    assert done == []
    gate.set()
    writer.wait()
    assert done == ["written"]


def test_an_error_is_raised_each_time(writer: Writer) -> None:
    def work(_: GoOn) -> None:
        raise OSError("the disk is away")

    writer.begin(work)
    for drop in (False, True, False):
        with pytest.raises(OSError, match="the disk is away"):
            writer.wait(drop=drop)


def test_what_is_not_needed_any_more_is_broken_off_where_it_can_be(writer: Writer) -> None:
    done: list[str] = []

    def work(go_on: GoOn) -> None:
        while True:
            go_on()

    writer.begin(work)
    writer.wait(drop=True)
    writer.begin(lambda _: done.append("written"))
    writer.wait(drop=True)
    assert done == ["written"]  # this could not


def test_the_next_work_is_not_broken_off_by_a_wait_before_it(writer: Writer) -> None:
    done: list[str] = []

    def work(go_on: GoOn) -> None:
        go_on()
        done.append("written")

    writer.wait(drop=True)
    writer.begin(work)
    writer.wait()
    assert done == ["written"]


def test_what_is_put_off_is_done_when_somebody_waits(writer: Writer) -> None:
    done: list[str] = []
    writer.begin(lambda _: done.append("written"), delay=3600)
    assert done == []
    writer.wait()
    assert done == ["written"]


def test_what_is_put_off_is_not_done_if_it_is_not_needed_any_more(writer: Writer) -> None:
    done: list[str] = []
    writer.begin(lambda _: done.append("written"), delay=3600)
    writer.wait(drop=True)
    assert done == []


def test_what_is_put_off_is_done_though_nobody_waits(writer: Writer) -> None:
    done = threading.Event()
    writer.begin(lambda _: done.set(), delay=1e-3)
    assert done.wait(60)


def test_what_is_put_off_is_done_at_the_end() -> None:
    done: list[str] = []
    writer = Writer()
    writer.begin(lambda _: done.append("written"), delay=3600)
    writer.close()
    assert done == ["written"]


def test_what_is_needed_is_begun_even_if_who_waits_does_not_need_it(writer: Writer) -> None:
    done: list[str] = []
    writer.begin(lambda _: done.append("written"), delay=3600, needed=True)
    writer.wait(drop=True)
    assert done == ["written"]

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")

from tests.unit.node.scripted import on_a_loop
from tests.unit.store.sql.stores import RUN, opened, with_exchange
from umbel.server.news import News, Saying

Heard = list[tuple[str, Any]]


def saying(loop: asyncio.AbstractEventLoop) -> tuple[Saying, Heard]:
    heard: Heard = []

    def hear(kind: str, content: Mapping[str, Any]) -> None:
        heard.append((kind, content["n"]))

    return Saying(loop, hear), heard


@on_a_loop
async def test_of_what_passes_the_last_is_heard() -> None:
    say, heard = saying(asyncio.get_running_loop())
    for n in range(100):
        say("answers", {"n": n})
    say("exchange", {"n": 0})
    await asyncio.sleep(0)
    assert heard == [("answers", 99), ("exchange", 0)]
    say("answers", {"n": 100})
    await asyncio.sleep(0)
    assert len(heard) == 2  # so soon after the last not at once
    while len(heard) < 3:
        await asyncio.sleep(0.01)
    assert heard[2] == ("answers", 100)


@on_a_loop
async def test_all_that_stays_is_heard_and_in_its_order() -> None:
    say, heard = saying(asyncio.get_running_loop())
    say("exchange", {"n": 1})
    await asyncio.sleep(0)
    say("exchange", {"n": 2})  # waits, until something comes that does not
    say("status", {"n": 3})
    say("status", {"n": 4})
    await asyncio.sleep(0)
    assert heard == [("exchange", 1), ("exchange", 2), ("status", 3), ("status", 4)]


@on_a_loop
async def test_what_threads_say_is_heard() -> None:
    say, heard = saying(asyncio.get_running_loop())

    def several() -> None:
        for n in range(1000):
            say("answers", {"n": n})
            if n % 100 == 0:
                say("status", {"n": n})

    await asyncio.to_thread(several)
    while ("answers", 999) not in heard or ("status", 900) not in heard:
        await asyncio.sleep(0.01)
    assert [n for kind, n in heard if kind == "status"] == [*range(0, 1000, 100)]
    numbers = [n for kind, n in heard if kind == "answers"]
    assert numbers == sorted(numbers)


@on_a_loop
async def test_whose_token_is_revoked_watches_no_more(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with_exchange(store)
        news = News(store, lambda _: True)
        seen: dict[str, list[int]] = {"vera": [], "anna": []}

        async def watch(who: str) -> None:
            async for event in news.watch(RUN, 0, who=who):
                seen[who].append(event.content["n"])

        watching = {who: asyncio.ensure_future(watch(who)) for who in seen}
        news.say(RUN, "log", {"n": 1})
        while seen != {"vera": [1], "anna": [1]}:
            await asyncio.sleep(0.01)
        news.leave("vera")
        news.say(RUN, "log", {"n": 2})
        await watching["vera"]
        while len(seen["anna"]) < 2:
            await asyncio.sleep(0.01)
        assert seen == {"vera": [1], "anna": [1, 2]}
        news.end()
        await watching["anna"]


@on_a_loop
async def test_who_watches_is_told_nothing_once_their_token_has_expired(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with_exchange(store)
        news = News(store, lambda _: True)
        assert [event async for event in news.watch(RUN, 0, who="vera", until=time.time() + 0.01)] == []

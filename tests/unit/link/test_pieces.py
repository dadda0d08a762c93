from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.node.scripted import on_a_loop
from umbel.link.ending import ending
from umbel.link.pieces import Behind, ahead, file_pieces, mapped_pieces, over
from umbel.wire.frames import write_data, write_frame

sizes = st.lists(st.integers(0, 40_000), max_size=20)


async def each(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@given(sizes)
def test_what_is_made_ahead_has_the_order_of_the_pieces(sizes: list[int]) -> None:
    pieces = [os.urandom(size) for size in sizes]

    async def made() -> list[bytes]:
        return [message async for message in ahead(each(pieces), lambda piece: b"<" + piece)]

    assert asyncio.run(made()) == [b"<" + piece for piece in pieces]


@pytest.mark.parametrize(("fast", "most"), [(0.0, 2), (math.inf, 4)])
@on_a_loop
async def test_who_reads_slowly_has_fewer_pieces_made_than_who_reads_fast(
    fast: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umbel.link.pieces._FAST", fast)
    taken: list[int] = []

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(40):
            taken.append(number)
            yield bytes(1 << 17)

    read = waiting = 0
    async for _ in ahead(pieces(), bytes):
        waiting = max(waiting, len(taken) - read)
        read += 1
    assert (read, waiting) == (40, most)


@on_a_loop
async def test_pieces_are_closed_when_nobody_wants_more() -> None:
    closed: list[bool] = []

    async def pieces() -> AsyncIterator[bytes]:
        try:
            for _ in range(10):
                yield bytes(10)
        finally:
            closed.append(True)

    async with ending(ahead(pieces(), bytes)) as messages:
        await anext(messages)
    assert closed == [True]  # and not when the garbage is collected


both = pytest.mark.parametrize("read", [file_pieces, mapped_pieces])


@both
@pytest.mark.parametrize("offset", [0, 1, 9_999, 10_000, 10_001])
@on_a_loop
async def test_a_file_comes_from_an_offset_on(read: Any, offset: int, tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(data := os.urandom(10_000))
    pieces = [piece async for piece in read(path, offset, 4_096)]
    assert b"".join(write_data(write_frame(piece)) for piece in pieces) == data[offset:]
    assert all(len(piece) == 4_096 for piece in pieces[:-1])


@both
@on_a_loop
async def test_an_empty_file_has_no_pieces(read: Any, tmp_path: Path) -> None:
    (tmp_path / "blob").touch()
    assert [piece async for piece in read(tmp_path / "blob", 0, 10)] == []


@on_a_loop
async def test_a_file_that_is_cut_meanwhile_ends(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(bytes(100_000))
    pieces = ahead(file_pieces(path, 0, 10_000), write_frame)
    assert bytes(write_data(await anext(pieces))) == bytes(10_000)
    os.truncate(path, 50)  # whoever maps it would be killed
    left = [bytes(write_data(piece)) async for piece in pieces]
    assert sum(map(len, left)) < 90_000
    assert not any(b"".join(left))


@given(sizes)
def test_all_that_came_is_taken_in_its_order(sizes: list[int]) -> None:
    pieces, taken = [os.urandom(size) for size in sizes], list[object]()

    async def put() -> None:
        async with Behind(taken.append) as behind:
            for piece in pieces:
                await behind.put(piece)

    asyncio.run(put())
    assert taken == pieces


@pytest.mark.parametrize("count", range(12))
@on_a_loop
async def test_what_came_before_an_error_is_taken(count: int) -> None:
    taken: list[object] = []

    async def put() -> None:
        async with Behind(taken.append) as behind:
            for number in range(count):
                await behind.put(bytes([number]))
            raise KeyError("the connection broke")

    with pytest.raises(KeyError):
        await put()
    assert taken == [bytes([number]) for number in range(count)]


@pytest.mark.parametrize("bad", range(12))
@on_a_loop
async def test_behind_what_cannot_be_taken_nothing_is(bad: int) -> None:
    taken: list[object] = []

    def take(piece: object) -> None:
        if piece == bytes([bad]):
            raise OSError("no room")
        taken.append(piece)

    async def put() -> None:
        async with Behind(take) as behind:
            for number in range(12):
                await behind.put(bytes([number]))

    with pytest.raises(OSError, match="no room"):
        await put()
    assert taken == [bytes([number]) for number in range(bad)]


@on_a_loop
async def test_who_is_cancelled_leaves_when_nothing_is_being_taken_any_more() -> None:
    go, begun, taken = threading.Event(), asyncio.Event(), list[object]()
    loop = asyncio.get_running_loop()

    def take(piece: object) -> None:
        loop.call_soon_threadsafe(begun.set)
        go.wait()
        taken.append(piece)

    async def put() -> None:
        async with Behind(take) as behind:
            for number in range(5):
                await behind.put(bytes([number]))
            await asyncio.Event().wait()

    task = asyncio.ensure_future(put())
    await begun.wait()
    for _ in range(3):  # once more than is needed to leave
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go.set()
    await over(task)
    assert task.cancelled()
    assert taken == [bytes([number]) for number in range(4)]


def test_a_loop_that_ends_leaves_no_thread_at_work_on_what_was_closed() -> None:
    go, begun, done = threading.Event(), threading.Event(), list[str]()

    def take(piece: object) -> None:
        begun.set()
        go.wait()
        done.append("taken")

    async def put() -> None:
        try:
            async with Behind(take) as behind:
                await behind.put(b"one")
                await behind.put(b"two")
                await asyncio.Event().wait()
        finally:
            done.append("closed")

    async def ends() -> None:
        task = asyncio.ensure_future(put())
        await asyncio.to_thread(begun.wait)
        asyncio.get_running_loop().call_soon(go.set)
        del task

    asyncio.run(ends())  # which cancels all tasks
    assert done == ["taken", "taken", "closed"]

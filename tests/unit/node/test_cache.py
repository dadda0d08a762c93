from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import umbel.node.cache
from tests.unit.node.scripted import on_a_loop
from umbel.digest import digest_of
from umbel.errors import CorruptFile, Unreachable
from umbel.node.cache import BlobCache, Read

DATA = os.urandom(5 << 18)
DIGEST = digest_of(DATA).hex()


class Source:
    """Gives a blob, and breaks off where a test says."""

    def __init__(self, data: bytes = DATA) -> None:
        self.data, self.offsets, self.stop = data, list[int](), len(data) + 1
        self.go = asyncio.Event()
        self.go.set()

    @property
    def read(self) -> Read:
        async def read(offset: int) -> AsyncIterator[memoryview]:
            self.offsets.append(offset)
            await self.go.wait()
            for begin in range(offset, len(self.data), 1 << 16):
                if begin >= self.stop:
                    self.stop = len(self.data) + 1
                    raise Unreachable("the connection broke")
                yield memoryview(self.data)[begin : begin + (1 << 16)]

        return read


@on_a_loop
async def test_a_blob_crosses_once(tmp_path: Path) -> None:
    cache, source = BlobCache(tmp_path, most=1 << 30), Source()
    source.go.clear()
    both = [asyncio.ensure_future(cache.get(DIGEST, len(DATA), source.read)) for _ in range(3)]
    await asyncio.sleep(0)
    source.go.set()
    for path in await asyncio.gather(*both):
        assert path.read_bytes() == DATA
    await cache.get(DIGEST, len(DATA), source.read)
    assert source.offsets == [0]


@on_a_loop
async def test_a_blob_may_be_named_by_its_sha_256(tmp_path: Path) -> None:
    name = hashlib.sha256(DATA).hexdigest()
    for _ in range(2):  # fetched, and then read again by another process
        path = await BlobCache(tmp_path, most=1 << 30).get(name, len(DATA), (source := Source()).read)
        assert (path.name, path.read_bytes()) == (name, DATA)
    assert source.offsets == []


@on_a_loop
async def test_a_blob_without_bytes_is_one(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, most=1 << 30)
    assert (await cache.get(digest_of(b"").hex(), 0, Source(b"").read)).read_bytes() == b""
    with pytest.raises(CorruptFile, match="has sent bytes that do not have the digest"):
        await cache.get(DIGEST, 0, Source(b"").read)


@on_a_loop
async def test_a_download_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    cache, source = BlobCache(tmp_path, most=1 << 30), Source()
    source.stop = 3 << 16
    with pytest.raises(Unreachable):
        await cache.get(DIGEST, len(DATA), source.read)
    cache = BlobCache(tmp_path, most=1 << 30)  # the node was started again
    assert (await cache.get(DIGEST, len(DATA), source.read)).read_bytes() == DATA
    assert source.offsets == [0, 3 << 16]


@on_a_loop
async def test_who_waits_goes_on_when_the_first_is_cancelled(tmp_path: Path) -> None:
    cache, source = BlobCache(tmp_path, most=1 << 30), Source()
    source.go.clear()
    first = asyncio.ensure_future(cache.get(DIGEST, len(DATA), source.read))
    second = asyncio.ensure_future(cache.get(DIGEST, len(DATA), source.read))
    while not source.offsets:
        await asyncio.sleep(0)
    first.cancel()
    source.go.set()
    assert (await second).read_bytes() == DATA


@on_a_loop
async def test_damage_is_noticed_and_fetched_again(tmp_path: Path) -> None:
    source = Source()
    path = await BlobCache(tmp_path, most=1 << 30).get(DIGEST, len(DATA), source.read)
    path.write_bytes(bytes([DATA[0] ^ 1]) + DATA[1:])
    cache = BlobCache(tmp_path, most=1 << 30)
    assert (await cache.get(DIGEST, len(DATA), source.read)).read_bytes() == DATA
    assert source.offsets == [0, 0]


@on_a_loop
async def test_a_damaged_beginning_costs_one_more_try(tmp_path: Path) -> None:
    (tmp_path / f"{DIGEST}.part").write_bytes(b"\0" * (1 << 16))
    source = Source()
    cache = BlobCache(tmp_path, most=1 << 30)
    assert (await cache.get(DIGEST, len(DATA), source.read)).read_bytes() == DATA
    assert source.offsets == [1 << 16, 0]


@on_a_loop
async def test_a_server_that_sends_something_else_is_given_up(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, most=1 << 30)
    for data in (bytes(len(DATA)), DATA + b"more"):
        with pytest.raises(CorruptFile, match="do not have the digest"):
            await cache.get(DIGEST, len(DATA), Source(data).read)
    assert list(tmp_path.iterdir()) == []


@on_a_loop
async def test_what_was_not_used_for_longest_goes_but_for_what_is_in_use(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, most=250)
    blobs = [bytes([i]) * 100 for i in range(4)]
    names = [digest_of(b).hex() for b in blobs]
    with cache.pinned(names[0]):
        for i in (0, 1, 2, 1, 3):
            await cache.get(names[i], 100, Source(blobs[i]).read)
        assert {p.name for p in tmp_path.iterdir()} == {names[0], names[3]}
    await cache.get(names[2], 100, Source(blobs[2]).read)
    assert {p.name for p in tmp_path.iterdir()} == {names[2], names[3]}


@on_a_loop
async def test_what_came_of_a_download_that_ended_early_goes_as_all_else(tmp_path: Path) -> None:
    """As each round's model does at a node that is so slow that its tasks are revoked."""
    cache, source = BlobCache(tmp_path, most=len(DATA)), Source()
    source.stop = 3 << 16
    with pytest.raises(Unreachable):
        await cache.get(DIGEST, len(DATA), source.read)
    assert [p.name for p in tmp_path.iterdir()] == [f"{DIGEST}.part"]
    other = bytes(len(DATA))
    await cache.get(digest_of(other).hex(), len(other), Source(other).read)
    assert [p.name for p in tmp_path.iterdir()] == [digest_of(other).hex()]


@on_a_loop
async def test_it_leaves_room_for_an_answer_where_the_disk_is_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = 350

    def usage(path: Path) -> SimpleNamespace:
        return SimpleNamespace(free=room - sum(file.stat().st_size for file in path.iterdir()))

    monkeypatch.setattr(umbel.node.cache, "disk_usage", usage)
    cache = BlobCache(tmp_path, most=1 << 30)
    blobs = [bytes([i]) * 100 for i in range(4)]
    for blob in blobs:
        await cache.get(digest_of(blob).hex(), 100, Source(blob).read)
        assert usage(tmp_path).free >= 100
    assert {p.name for p in tmp_path.iterdir()} == {digest_of(blob).hex() for blob in blobs[2:]}
    room = 200  # somebody else has taken the rest
    await cache.get(digest_of(blobs[3]).hex(), 100, Source(blobs[3]).read)
    assert {p.name for p in tmp_path.iterdir()} == {digest_of(blobs[3]).hex()}
    room = 100
    BlobCache(tmp_path, most=1 << 30)
    assert list(tmp_path.iterdir()) == []

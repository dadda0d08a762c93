from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

from tests.unit.node.scripted import PATIENCE, on_a_loop
from tests.unit.store.sql.stores import opened
from umbel import wire
from umbel.digest import digest_of
from umbel.errors import Rejected, Unreachable
from umbel.server.counts import Counts
from umbel.server.uploads import Uploads

DATA = os.urandom(300_000)
DIGEST = digest_of(DATA)
PIECE = 1 << 16


def head(offset: int = 0) -> wire.BlobHead:
    return wire.BlobHead(digest=DIGEST, size=len(DATA), offset=offset)


async def pieces(begin: int = 0, end: int = len(DATA)) -> AsyncIterator[bytes]:
    for at in range(begin, end, PIECE):
        yield DATA[at : min(at + PIECE, end)]


async def breaks_off(at: int) -> AsyncIterator[bytes]:
    async for piece in pieces(0, at):
        yield piece
    raise Unreachable("the cable was pulled")


async def never_ends(begun: asyncio.Event) -> AsyncIterator[bytes]:
    yield DATA[:1]
    begun.set()
    await asyncio.Event().wait()


@on_a_loop
async def test_who_reads_many_blobs_at_a_time_and_slowly_waits_and_nobody_else(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        uploads = Uploads(store, Counts())
        assert await uploads.write(head(), pieces(), "node berlin") == (len(DATA), True)
        slow = [uploads.read(DIGEST.hex(), 0, "node berlin") for _ in range(20)]
        first = [asyncio.ensure_future(anext(reading)) for reading in slow]
        await asyncio.wait(first[:16])
        another = [bytes(piece) async for piece in uploads.read(DIGEST.hex(), 0, "node lyon")]
        assert b"".join(another) == DATA
        assert [reading.done() for reading in first] == [True] * 16 + [False] * 4
        await slow[0].aclose()  # type: ignore[attr-defined]
        assert bytes(await first[16]) == DATA
        first[17].cancel()  # it does not wait any longer
        for reading in slow[1:17]:
            await reading.aclose()  # type: ignore[attr-defined]
        assert [bytes(await reading) for reading in first[18:]] == [DATA, DATA]
        for reading in slow[18:]:
            await reading.aclose()  # type: ignore[attr-defined]
        assert not uploads._reading._turns


@on_a_loop
async def test_nobody_waits_for_who_never_sends_the_rest(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        uploads, begun = Uploads(store, Counts()), asyncio.Event()
        idle = asyncio.ensure_future(uploads.write(head(), never_ends(begun), "node berlin"))
        await begun.wait()
        assert await uploads.write(head(), pieces(), "node lyon") == (len(DATA), True)
        assert store.blobs.path(DIGEST.hex()).read_bytes() == DATA
        idle.cancel()
        await asyncio.wait([idle])


@on_a_loop
async def test_each_goes_on_where_its_own_upload_broke_off(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        uploads = Uploads(store, Counts())
        with pytest.raises(Unreachable):
            await uploads.write(head(), breaks_off(3 * PIECE), "node berlin")
        assert uploads.stat(DIGEST.hex(), "node berlin") == (3 * PIECE, False)
        assert uploads.stat(DIGEST.hex(), "node lyon") == (0, False)
        with pytest.raises(Rejected, match="0 bytes are here"):
            await uploads.write(head(3 * PIECE), pieces(3 * PIECE), "node lyon")
        assert await uploads.write(head(3 * PIECE), pieces(3 * PIECE), "node berlin") == (len(DATA), True)
        assert uploads.stat(DIGEST.hex(), "node lyon") == (len(DATA), True)  # so it need not send it


@on_a_loop
async def test_the_same_sender_takes_the_place_of_its_own_upload(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        uploads, begun = Uploads(store, Counts()), asyncio.Event()
        idle = asyncio.ensure_future(uploads.write(head(), never_ends(begun), "node berlin"))
        await begun.wait()
        idle.cancel()  # its connection has gone
        await asyncio.wait([idle])
        there, _ = uploads.stat(DIGEST.hex(), "node berlin")
        assert there == 1
        assert await uploads.write(head(1), pieces(1), "node berlin") == (len(DATA), True)


@on_a_loop
async def test_nobody_waits_for_the_disk_when_a_sender_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All has come, and is being synced, which takes long for a large model."""
    reached, go_on, others_went_on = asyncio.Event(), threading.Event(), list[bool]()
    loop = asyncio.get_running_loop()

    def slow(_: int) -> None:
        loop.call_soon_threadsafe(reached.set)
        others_went_on.append(go_on.wait(PATIENCE))

    monkeypatch.setattr("umbel.store.sql.incoming.sync_file", slow)
    with opened(tmp_path) as store:
        uploads = Uploads(store, Counts())
        writing = asyncio.create_task(uploads.write(head(), pieces(), "node berlin"))
        await reached.wait()
        writing.cancel()
        await asyncio.wait([writing], timeout=0)
        go_on.set()
        await asyncio.wait([writing])
        assert others_went_on == [True]
        assert uploads.stat(DIGEST.hex(), "node berlin") == (len(DATA), True)


@on_a_loop
async def test_an_upload_whose_sender_has_gone_before_it_began_is_closed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        uploads = Uploads(store, Counts())
        with store.blobs._alone(DIGEST.hex()):  # another upload of it is just being given up
            writing = asyncio.create_task(uploads.write(head(), pieces(), "node berlin"))
            await asyncio.wait([writing], timeout=0)
            writing.cancel()
            await asyncio.wait([writing], timeout=0)
        await asyncio.wait([writing])
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)
        assert not store.blobs._uploads


@on_a_loop
async def test_nothing_is_remembered_of_uploads_that_were_wrong(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        uploads = Uploads(store, Counts())
        for number in range(10):
            wrong = wire.BlobHead(digest=bytes([number]) * 32, size=len(DATA))
            with pytest.raises(Rejected, match="do not have its digest"):
                await uploads.write(wrong, pieces(), "node berlin")
        assert not store.blobs._uploads

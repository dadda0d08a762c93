"""Blobs of a server: in rows and in files, on their way in, and on their way out."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("sqlalchemy")

from tests.unit.store.sql.stores import RUN, answer, busy, opened, with_exchange
from umbel.arrays import Arrays
from umbel.digest import digest_of
from umbel.errors import CorruptFile, NotThere, Rejected
from umbel.store.lock import copying
from umbel.store.sql import Incoming, Kept, ServerStore
from umbel.store.sql.values import INLINE

LARGE = os.urandom(INLINE + 1000)
DIGEST = digest_of(LARGE).hex()


def name_it(store: ServerStore, *kept: Kept, client: str = "a") -> None:
    assert store.accept(RUN, 1, answer(client), kept).result() == "accepted"


def test_arrays_come_back(tmp_path: Path) -> None:
    small, large = Arrays({"w": np.arange(3.0)}), Arrays({"w": np.arange(20_000.0)})
    with opened(tmp_path) as store:
        with_exchange(store)
        kept = [store.blobs.keep(arrays, sync=sync) for arrays, sync in ((small, True), (large, False), (large, True))]
        assert [k.digest for k in kept] == [small.digest(), large.digest(), large.digest()]
        assert [k.content is None for k in kept] == [False, True, True]
        assert store.blobs.fetch(small.digest()).digest() == small.digest()
        name_it(store, *kept)
    with opened(tmp_path) as store:
        for arrays in (small, large):
            assert store.blobs.fetch(arrays.digest()).digest() == arrays.digest()
            assert store.blobs.find(arrays.digest()) == len(arrays.to_bytes())
        assert isinstance(store.blobs.read(large.digest()), Path)


def test_arrays_that_several_keep_at_once_are_one_file(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        arrays = [Arrays({"w": np.arange(20_000.0 + i)}) for i in range(5)]
        for one in arrays:  # each by several threads, some of which want it synced
            with ThreadPoolExecutor(4) as threads:
                kept = set(threads.map(partial(store.blobs.keep, one), (True, False, False, True)))
            assert kept == {Kept(one.digest(), len(one.to_bytes()), None)}
        assert {path.name for path in store.blobs.directory.iterdir()} == {
            store.blobs.path(one.digest()).name for one in arrays
        }
        for one in arrays:
            assert store.blobs.path(one.digest()).read_bytes() == one.to_bytes()


def test_equal_arrays_are_one_file(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        kept = {store.blobs.keep(Arrays({"w": np.arange(20_000.0)}), sync) for sync in (False, True, False)}
        assert len(kept) == len(list(store.blobs.directory.iterdir())) == 1


def test_what_is_broken_off_leaves_nothing(tmp_path: Path) -> None:
    arrays = Arrays({"w": np.arange(20_000.0)})

    def stop() -> None:
        raise KeyError("not needed any more")

    with opened(tmp_path) as store:
        with pytest.raises(KeyError, match="not needed"):
            store.blobs.keep(arrays, go_on=stop)
        assert list(store.blobs.directory.iterdir()) == []
        assert store.blobs.keep(arrays).digest == arrays.digest()


def test_a_damaged_file_is_noticed(tmp_path: Path) -> None:
    arrays = Arrays({"w": np.arange(20_000.0)})
    with opened(tmp_path) as store:
        name_it(with_exchange(store), store.blobs.keep(arrays))
        path = store.blobs.path(arrays.digest())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with opened(tmp_path) as store:
        with pytest.raises(CorruptFile, match="is damaged"):
            store.blobs.fetch(arrays.digest())
        path.write_bytes(bytes(data[:1000]))
        assert store.blobs.find(arrays.digest()) is None  # so that it is sent again
        assert store.blobs.keep(arrays).size == len(data)
        assert store.blobs.fetch(arrays.digest()).digest() == arrays.digest()


def test_what_is_not_there(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert store.blobs.find(DIGEST) is None
        assert store.blobs.read(DIGEST) is None
        assert store.blobs.received(DIGEST, "lyon") == 0
        with pytest.raises(NotThere):
            store.blobs.fetch(DIGEST)
        for wrong in ("../umbel.sqlite", "", "AB" * 32, DIGEST + "0"):
            with pytest.raises(Rejected, match="no digest"):
                store.blobs.find(wrong)
            with pytest.raises(Rejected, match="no digest"):
                store.blobs.incoming(wrong, 3, "lyon")


# --- on their way in -------------------------------------------------------------------------------


@given(cuts=st.lists(st.integers(0, len(LARGE)), max_size=5), breaks=st.sets(st.integers(0, 4)))
def test_an_upload_goes_on_where_it_broke_off(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], breaks: set[int]
) -> None:
    with opened(tmp_path_factory.mktemp("server")) as store:
        upload = store.blobs.incoming(DIGEST, len(LARGE), "lyon")
        for n, (begin, end) in enumerate(zip([0, *sorted(cuts)], [*sorted(cuts), len(LARGE)], strict=True)):
            assert upload.received == begin == store.blobs.received(DIGEST, "lyon")
            upload.write(LARGE[begin:end])
            if n in breaks:
                upload = store.blobs.incoming(DIGEST, len(LARGE), "lyon")
        assert upload.finish() == Kept(DIGEST, len(LARGE), None)
        assert store.blobs.path(DIGEST).read_bytes() == LARGE
        assert store.blobs.find(DIGEST) == len(LARGE)
        assert not any((store.directory / "incoming").iterdir())


def test_a_small_upload_goes_into_a_row(tmp_path: Path) -> None:
    digest = digest_of(b"small").hex()
    with opened(tmp_path) as store:
        upload = store.blobs.incoming(digest, 5, "lyon")
        upload.write(b"small")
        assert upload.finish() == Kept(digest, 5, b"small")
        assert store.blobs.read(digest) == b"small"
        name_it(with_exchange(store), Kept(digest, 5, b"small"))
        assert not any(store.blobs.directory.iterdir())
    with opened(tmp_path) as store:
        assert store.blobs.read(digest) == b"small"


def refused(upload: Incoming, data: bytes, message: str) -> None:
    with pytest.raises(Rejected, match=message):
        send(upload, data)


def send(upload: Incoming, data: bytes) -> None:
    upload.write(data)
    upload.finish()


def test_uploads_that_are_wrong(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        refused(store.blobs.incoming(DIGEST, len(LARGE), "lyon"), LARGE[:-1], "bytes have come")
        assert store.blobs.received(DIGEST, "lyon") == len(LARGE) - 1
        refused(store.blobs.incoming(DIGEST, len(LARGE), "lyon"), b"\0\0", "has more")
        assert store.blobs.received(DIGEST, "lyon") == 0
        refused(store.blobs.incoming(DIGEST, len(LARGE), "lyon"), LARGE[::-1], "do not have its digest")
        assert store.blobs.received(DIGEST, "lyon") == 0
        store.blobs.incoming(DIGEST, len(LARGE), "lyon").write(LARGE[:5000])
        with pytest.raises(Rejected, match="has more"):
            store.blobs.incoming(DIGEST, 4000, "lyon")
        assert store.blobs.received(DIGEST, "lyon") == 0
        assert store.blobs.find(DIGEST) is None


def test_a_later_upload_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        first = store.blobs.incoming(DIGEST, len(LARGE), "lyon")
        first.write(LARGE[:1000])
        second = store.blobs.incoming(DIGEST, len(LARGE), "lyon")
        refused(first, LARGE[1000:], "another one may have taken its place")
        send(second, LARGE[1000:])
        first.close()
        assert store.blobs.path(DIGEST).read_bytes() == LARGE


def test_what_others_send_of_a_blob_does_not_touch_it(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        honest = store.blobs.incoming(DIGEST, len(LARGE), "lyon")
        honest.write(LARGE[:1000])
        store.blobs.incoming(DIGEST, len(LARGE), "berlin").write(b"junk")
        refused(store.blobs.incoming(DIGEST, 4, "berlin"), b"", "do not have its digest")
        assert store.blobs.received(DIGEST, "lyon") == 1000
        assert store.blobs.received(DIGEST, "berlin") == 0
        again = store.blobs.incoming(DIGEST, len(LARGE), "berlin")
        again.write(LARGE[:10])
        send(honest, LARGE[1000:])
        send(again, LARGE[10:])  # though all of it is here now
        assert store.blobs.path(DIGEST).read_bytes() == LARGE
        assert not any((store.directory / "incoming").iterdir())


def test_many_send_the_same_at_once(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with_exchange(store)
        arrays = Arrays({"w": np.arange(50_000.0)})
        data = bytes(arrays.to_bytes())

        def one(n: int) -> None:
            name_it(store, store.blobs.keep(Arrays.from_bytes(data), sync=n % 2 == 0), client=str(n))

        threads = [threading.Thread(target=one, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store.answers(RUN, 1)) == 16
        assert [path.read_bytes() for path in store.blobs.directory.iterdir()] == [data]


# --- on their way out ------------------------------------------------------------------------------


def test_only_what_is_ours_is_swept(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        strange = [store.blobs.directory / "README", tmp_path / "incoming" / "notes", store.blobs.directory / "x.tmp"]
        ours = [store.blobs.path("ab" * 32), tmp_path / "incoming" / f"{'cd' * 32}.{'ef' * 8}"]
        ours.append(ours[0].with_name(ours[0].name + ".tmp"))
        for path in (*strange, *ours):
            path.write_bytes(b"x")
            os.utime(path, (time.time() - 4000, time.time() - 4000))
        found = store.sweep().result()
        assert (found.blobs, found.bytes, found.incoming) == (0, 2, 1)
        assert [path.exists() for path in (*strange, *ours)] == [True] * 3 + [False] * 3


def test_what_was_kept_lately_stays(tmp_path: Path) -> None:
    clock = [time.time()]
    with opened(tmp_path, now=lambda: clock[0]) as store:
        store.blobs.keep_bytes(LARGE)
        small = store.blobs.keep_bytes(b"small")
        store.blobs.incoming("ab" * 32, 10, "lyon").write(b"12345")
        clock[0] += 3000
        store.sweep().result()
        assert store.blobs.find(DIGEST) == len(LARGE)
        assert store.blobs.find(small.digest) == 5
        assert store.blobs.received("ab" * 32, "lyon") == 5
        clock[0] += 3000
        store.sweep().result()
        assert store.blobs.find(DIGEST) is store.blobs.find(small.digest) is None
        assert store.blobs.received("ab" * 32, "lyon") == 0


def test_what_somebody_is_about_to_name_again_stays(tmp_path: Path) -> None:
    """The sweep knows that nothing names it, and has not come to its file."""
    with opened(tmp_path) as store:
        with_exchange(store)
        name_it(store, store.blobs.keep_bytes(LARGE))
        store.record(RUN, "{}", round=1, call=1, sequence=1).result()

        def named_meanwhile() -> frozenset[str]:
            with_exchange(store)
            held = store.blobs.held(DIGEST)
            assert held is not None
            name_it(store, held, client="b")
            return frozenset()  # from before

        assert store.blobs.sweep([DIGEST], named_meanwhile, -1.0) == (0, 0)
        assert store.blobs.path(DIGEST).read_bytes() == LARGE


def test_a_sweep_waits_for_nobody_who_is_at_work_on_a_file(tmp_path: Path) -> None:
    """Who begins an upload waits for the one before, which at its end waits for what a sweep holds."""
    with opened(tmp_path) as store:
        store.blobs.keep_bytes(LARGE)
        with store.blobs._alone(DIGEST):
            store.sweep(-1.0).result(60)
            assert store.blobs.path(DIGEST).read_bytes() == LARGE
        store.sweep(-1.0).result(60)
        assert list(store.blobs.directory.iterdir()) == []


def test_what_is_not_here_is_not_held(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert store.blobs.held(DIGEST) is None
        assert store.blobs.fresh(3600.0) == frozenset()


def test_nothing_is_removed_while_a_copy_is_made(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.blobs.keep_bytes(LARGE)
        with copying(store.blobs.directory):
            store.sweep(-1.0).result()
            assert store.blobs.path(DIGEST).read_bytes() == LARGE
        store.sweep(-1.0).result()
        assert list(store.blobs.directory.iterdir()) == []


def test_large_models_do_not_wait_for_the_next_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umbel.store.sql.retention._MUCH", 3 * len(LARGE))
    models = [LARGE + bytes([n]) for n in range(20)]
    with opened(tmp_path) as store:
        with_exchange(store)
        for n, model in enumerate(models, 1):
            kept = store.blobs.keep_bytes(model)
            store.commit(RUN, "0", round=n, sequence=n, state="0", blobs={"commit": [kept]}).result()
            assert store.blobs.path(kept.digest).read_bytes() == model
    assert len(list((tmp_path / "blobs").iterdir())) <= 6


def test_what_was_just_named_again_stays(tmp_path: Path) -> None:
    """In one group: a sweep finds that nothing names a blob, and then something does."""
    with opened(tmp_path) as store:
        with_exchange(store)
        kept = store.blobs.keep_bytes(LARGE)
        name_it(store, kept)
        store.record(RUN, "{}", round=1, call=1, sequence=1).result()
        with_exchange(store)
        with busy(store):
            swept = store.sweep(-1.0)
            accepted = store.accept(RUN, 1, answer("b"), [kept])
        assert swept.result().blobs == 1
        assert accepted.result() == "accepted"
        assert store.blobs.path(DIGEST).read_bytes() == LARGE
        assert store.blobs.find(DIGEST) == len(LARGE)

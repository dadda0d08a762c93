"""A worker's outbox and the main process's inbox, over one region."""

from __future__ import annotations

import gc
import time
from threading import get_ident

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.arrays import Arrays
from umbel.buffers import allocating
from umbel.simulation.heard import Heard
from umbel.simulation.inbox import Inbox
from umbel.simulation.messages import Answer, Stored
from umbel.simulation.outbox import Outbox
from umbel.simulation.region import Region
from umbel.simulation.worker import Over, Worker
from umbel.update import Update


def pair(size: int = 1 << 20) -> tuple[Outbox, Inbox]:
    region = Region(size)
    return Outbox(Region(size, region.handle)), Inbox(region)


def close(inbox: Inbox) -> None:
    inbox.region.close()


def stored(outbox: Outbox, inbox: Inbox, arrays: Arrays) -> Stored:
    put = outbox.put(arrays)
    assert isinstance(put, Stored)
    inbox.specs += outbox.fresh
    outbox.fresh = []
    outbox.task_done()
    return put


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 3)), max_size=30))
def test_arrays_arrive_as_they_were_while_any_number_of_them_is_kept(steps: list[tuple[int, int]]) -> None:
    outbox, inbox = pair()
    kept: list[tuple[Arrays, int, int]] = []
    for n, (size, keep) in enumerate(steps):
        arrays = Arrays({"w": np.full(size, n, np.float32), "n": np.int64(n)})
        while isinstance(put := outbox.put(arrays), int):
            inbox.starve(put)
            if not inbox.release():
                inbox.grow()
            outbox.grow(inbox.serve())
        inbox.specs += outbox.fresh
        outbox.fresh = []
        outbox.task_done()
        kept.append((inbox.arrays(put), n, size))
        del kept[: -keep or len(kept)]
        inbox.release()
        assert all(a["n"] == m and (a["w"] == m).all() and a["w"].size == s for a, m, s in kept)
    close(inbox)


def test_a_worker_waits_the_longer_the_more_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    _, inbox = pair()
    inbox.starve(1 << 20)
    little = inbox.patience
    inbox.starve(1 << 30)
    assert 0 < little < inbox.patience
    now += inbox.patience
    assert inbox.patience <= 0
    close(inbox)


def test_what_is_made_in_lent_memory_is_not_copied() -> None:
    outbox, inbox = pair()
    with allocating(outbox.lend):
        update = Update(model={"w": np.ones(50_000)})
    address = update.arrays["w"].ctypes.data
    put = stored(outbox, inbox, update.arrays)
    assert outbox._region._address <= address < outbox._region._address + outbox._region.size
    assert inbox.arrays(put)["w"][-1] == 1.0
    close(inbox)


def test_a_piece_is_free_only_when_neither_side_looks_at_it() -> None:
    outbox, inbox = pair()
    with allocating(outbox.lend):
        mine = Update(model={"w": np.ones(100_000)}).arrays  # user code keeps it in a global, say
    its = inbox.arrays(stored(outbox, inbox, mine))
    view = mine["w"][5:9]
    del its
    inbox.release()
    del mine
    assert isinstance(outbox.put(Arrays({"w": np.zeros(100_000)})), int), "there is no room for a second one"
    del view
    gc.collect()
    assert isinstance(outbox.put(Arrays({"w": np.zeros(100_000)})), Stored)
    close(inbox)


def test_what_a_fork_may_look_at_is_never_free_again() -> None:
    outbox, inbox = pair()
    with allocating(outbox.lend):
        seen = Update(model={"w": np.ones(60_000)}).arrays
        outbox.pin()
        later = Update(model={"w": np.full(60_000, 2.0)}).arrays
    address = seen["w"].ctypes.data
    del seen
    gc.collect()
    assert inbox.arrays(stored(outbox, inbox, later))["w"][0] == 2.0, "it was copied"
    assert isinstance(outbox.put(later), int), "there is no room for it"
    assert outbox._region._address <= address < outbox._region._address + outbox._region.size
    assert outbox.lend(100_000) is None
    close(inbox)


def test_what_was_lent_and_not_used_comes_back() -> None:
    outbox, inbox = pair()
    for _ in range(20):
        with allocating(outbox.lend):
            Update(model={"w": np.ones(60_000)})
        outbox.task_done()
    assert isinstance(outbox.put(Arrays({"w": np.zeros(60_000)})), Stored)
    close(inbox)


def test_what_nobody_wants_and_what_nobody_will_hear_of_comes_back() -> None:
    outbox, inbox = pair()
    arrays = Arrays({"w": np.zeros(50_000)})
    for _ in range(10):
        inbox.drop(Answer(0, "model", arrays=stored(outbox, inbox, arrays), extra={"c": stored(outbox, inbox, arrays)}))
        assert isinstance(outbox.put(arrays), Stored)
        outbox.task_given_up()
    close(inbox)


def test_a_spec_is_told_of_once() -> None:
    outbox, inbox = pair()
    for n in range(5):
        put = stored(outbox, inbox, Arrays({"w": np.full(3, n)}))
        assert inbox.arrays(put)["w"].tolist() == [n] * 3
    assert len(inbox.specs) == 1
    close(inbox)


def test_which_pieces_of_a_broadcast_user_code_still_holds() -> None:
    region = Region(1 << 16)
    heard = Heard(Region(1 << 16, region.handle, writable=False))
    first, second = heard.get(0, 100), heard.get(128, 200)
    view = second[3:]
    assert heard.held() == [(0, 100), (128, 328)]
    del first, second
    assert heard.held() == [(128, 328)]
    del view
    assert heard.held() == []
    region.close()


def test_nobody_waits_for_room_once_the_exchange_is_over() -> None:
    """Its end was heard while a handler asked for memory, and nobody will answer any more."""
    worker = object.__new__(Worker)
    worker._over, worker._serving = True, get_ident()
    with pytest.raises(Over):
        worker._room(1 << 20)

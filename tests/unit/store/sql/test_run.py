"""A run in the server's store, as the engine sees it; what it promises is checked in tests/conformance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sqlalchemy")

from tests.unit.store.sql.stores import RUN, answer, busy, opened, with_exchange
from umbel.arrays import Arrays
from umbel.engine.history import Row
from umbel.engine.ports import Commit, Record
from umbel.engine.question import Answer
from umbel.errors import DiskFull
from umbel.store.sql import OpenExchange, RunStore, ServerStore


def record(sequence: int, *clients: str) -> Record:
    done = Answer(value=Arrays({"w": np.full(3, 1.0)}), clients=clients)
    return Record(round=sequence, call=1, digest={}, sequence=sequence, answer=done)


def commit(number: int, **changes: Any) -> Commit:
    state = {"model": Arrays({"w": np.full(20_000, float(number))})}
    return replace(Commit(rows=(Row(round=number),), state=state, sequence=number), **changes)


def answered(store: ServerStore, *clients: str, sequence: int = 1) -> None:
    exchange = OpenExchange(sequence=sequence, digest="d", opened=1.0)
    store.open_exchange(RUN, exchange).result()
    for client in clients:
        row = replace(answer(client), state=client != "plain")
        assert store.accept(RUN, sequence, row).result() == "accepted"


def test_states_move_with_the_record_or_with_the_commit_that_makes_it_needless(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with_exchange(store)
        run = RunStore(store, RUN)
        answered(store, "a", "plain", "b")
        run.record(record(1, "a", "plain"))
        assert len(run.records()) == 1
        assert dict(store.states(RUN)) == {"a": 1}
        answered(store, "a", "b", sequence=2)
        run.record(record(2, "b"))
        run.commit(commit(2))
        run.close()
        assert dict(store.states(RUN)) == {"a": 1, "b": 2}
        assert not store.unclosed(RUN)
        assert store.saved(RUN)[1] == []


def test_the_larger_a_mean_is_the_longer_its_round_may_take_to_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umbel.store.sql.run._PACE", 1.0)  # bytes a second: longer than any test takes
    mean = Arrays({"w": np.full(20_000, 0.5)})
    with opened(tmp_path) as store:
        with_exchange(store)
        run = RunStore(store, RUN)
        run.record(replace(record(1), answer=Answer(value=mean, clients=())))
        run.commit(commit(1))
        run.close()
        assert store.blobs.find(mean.digest()) is None


def test_who_leads_the_run_may_say_whose_states_count(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with_exchange(store)
        run = RunStore(store, RUN, counted=lambda: ["b"])
        answered(store, "a", "b")
        run.record(record(1, "a", "b"))
        run.commit(commit(1))
        run.close()
        assert dict(store.states(RUN)) == {"b": 1}


def test_the_best_model_stays_as_long_as_it_is_the_best(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with_exchange(store)
        run = RunStore(store, RUN)
        assert run.best() is None
        for n in range(1, 6):
            best = Arrays({"w": np.full(20_000, n / 3)}) if n in (1, 2) else None
            run.commit(commit(n, best=best))
            found = run.best()
            assert found is not None
            assert found["w"][0] == min(n, 2) / 3
            store.sweep(-1.0).result()
        assert len(list(store.blobs.directory.iterdir())) == 3  # two commits, and the best
        assert run.commits()[-1].best is None
        run.close()


def test_a_commit_is_written_while_the_run_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with_exchange(store)
        run = RunStore(store, RUN)
        with busy(store):
            run.commit(commit(1))  # returns
            opened_next = store.open_exchange(RUN, OpenExchange(sequence=2, digest="d", opened=2.0))
        opened_next.result()
        assert [c.rows[0].round for c in run.commits()] == [1]
        first = next(iter(store.unclosed(RUN)), None)
        assert first is not None
        assert first.sequence == 2
        run.close()


def test_an_error_of_a_commit_is_raised_at_the_next_step(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with_exchange(store)
        run = RunStore(store, RUN)
        pages = store._write(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar()).result()
        store._write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={pages}").scalar()).result()
        run.commit(commit(1, state={"note": "x" * 200_000}))
        with pytest.raises(DiskFull):
            run.record(record(2))
        with pytest.raises(DiskFull):
            run.close()
        assert store.saved(RUN)[0] == []


def test_the_database_does_not_grow_with_the_rounds(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with_exchange(store)
        run = RunStore(store, RUN)
        for n in range(1, 20):
            run.commit(commit(n, state={"note": "x" * 50_000}))
        run.close()
        rows = store.saved(RUN)[0]
        assert [row.state is not None for row in rows] == [False] * 17 + [True] * 2
        assert sum(len(row.content) for row in rows) < 10_000

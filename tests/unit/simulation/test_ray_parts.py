"""Parts of the Ray engine that need no Ray: how values travel, and shards that were folded elsewhere."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import umbel
from umbel import Arrays, Update, aggregate
from umbel.aggregate import Aggregator
from umbel.engine.question import Question
from umbel.engine.reduction import SHARD, Reduction
from umbel.errors import BadUpdate, UsageError
from umbel.simulation import ray_engine
from umbel.simulation.ray_actor import seal, unseal
from umbel.simulation.ray_crew import Member, Piece


def carried(value: Any) -> Any:
    """Seal, let another process have it, and unseal."""
    data, pieces, writable = seal(value)
    return unseal((data, [np.frombuffer(piece.tobytes(), np.uint8) for piece in pieces], writable))


def test_where_ray_is_not_installed_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr(ray_engine, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"umbel\[ray\]"):
        umbel.Ray(clients=3)


def test_what_is_still_written_to_arrives_writable_and_the_rest_does_not() -> None:
    model = Arrays({"w": np.arange(5.0), "n": 3})
    total = model.thawed()
    got, open_one = carried((model, total))
    assert got == model
    assert not got.writable
    assert open_one.writable
    assert open_one.digest() == model.digest()
    assert open_one.raw("w").ctypes.data % 8 == 0


def question(aggregator: Aggregator, sent: Arrays | None) -> Question:
    kind = "train" if sent is not None else "query"
    return Question(kind=kind, name="q", seed=0, round=1, call=1, model=sent, aggregator=aggregator)  # type: ignore[arg-type]


def folded(q: Question, updates: list[Update], begin: int) -> Any:
    """A shard folded elsewhere, as it arrives."""
    reduction = Reduction(q)
    for place, update in enumerate(updates, begin):
        reduction.fold(str(place), place, update)
    return carried(reduction.part())


SENT = Arrays({"w": np.linspace(-1, 1, 6, dtype=np.float32)})


@given(st.integers(1, 3), st.integers(0, SHARD), st.integers(0, 20), st.integers(0, 99), st.booleans())
def test_shards_folded_elsewhere_give_the_same_bits(
    whole: int, here: int, spares: int, seed: int, values: bool
) -> None:
    """Whole shards elsewhere, the next one here or elsewhere, and spares behind it here."""
    rng = np.random.default_rng(seed)
    count = whole * SHARD + here + spares
    arrays = [{"w": rng.normal(size=6).astype(np.float32)} for _ in range(count)]
    weights = [float(rng.integers(1, 9)) for _ in arrays]
    updates = [
        Update(value=a, weight=w) if values else Update(model=a, weight=w) for a, w in zip(arrays, weights, strict=True)
    ]
    q = question(aggregate.mean(), None if values else SENT)
    expected, joined = Reduction(q), Reduction(q)
    for place, update in enumerate(updates):
        expected.fold(str(place), place, update)
    for begin in range(0, whole * SHARD, SHARD):
        joined.join(begin, folded(q, updates[begin : begin + SHARD], begin))
    if here:
        joined.join(whole * SHARD, folded(q, updates[whole * SHARD :][:here], whole * SHARD))
    for place in range(whole * SHARD + here, count):
        joined.fold(str(place), place, updates[place])
    a, b = expected.finish(), joined.finish()
    assert q.aggregator is not None
    assert q.aggregator.finish(a.acc) == q.aggregator.finish(b.acc)
    assert (a.names, a.rows) == (b.names, b.rows)


@pytest.mark.parametrize("aggregator", [aggregate.sum(), aggregate.concat()])
@pytest.mark.parametrize("update", [Update(value={"y": 1.0}), Update(value={"x": 1.0}, metrics={"m": np.ones(2)})])
def test_a_shard_that_does_not_fit_is_refused_whole(aggregator: Aggregator, update: Update) -> None:
    q = question(aggregator, None)
    first = [Update(value={"x": 1.0}, metrics={"m": 1.0})]
    reduction = Reduction(q)
    reduction.join(0, folded(q, first, 0))
    with pytest.raises(BadUpdate):
        reduction.join(SHARD, folded(q, [update], SHARD))
    reduction.fold("a", SHARD, first[0])
    assert reduction.finish().names == ["0", "a"]


def test_a_part_can_be_pickled_without_its_arrays() -> None:
    q = question(aggregate.mean(), Arrays({"w": np.zeros(1 << 20)}))
    reduction = Reduction(q)
    reduction.fold("a", 0, Update(model={"w": np.ones(1 << 20)}))
    data, pieces, _ = seal(reduction.part())
    assert len(pickle.dumps(data)) < 10_000
    assert len(pieces) == 1


@given(st.lists(st.booleans(), max_size=6))
def test_a_piece_that_may_have_cost_an_actor_has_one_to_itself(suspects: list[bool]) -> None:
    """Else a piece whose answer was lost with its actor would be blamed for what the one behind it does."""
    member = Member(actor=None, starting=None, pace=0)
    for i, suspect in enumerate(suspects):
        piece = Piece(0, [(str(i), 0, i)], folds=False, suspect=suspect)
        if member.room and member.takes(piece):
            member.flight.append(piece)
    assert len(member.flight) == 1 or not any(piece.suspect for piece in member.flight)
    assert len(member.flight) >= min(2, suspects.count(False)) or suspects[0]

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from umbel.arrays import Arrays
from umbel.codec import encode
from umbel.store.memory import MemoryClientStates


def state(n: int) -> dict[str, Any]:
    return {
        "n": n,
        "a": np.full(n % 50, n),
        "m": Arrays({"w": np.full(3, n)}),
        "raw": bytes(n % 7),
        "f": n / 3,
        "t": "x",
    }


def same(one: Any, other: Any) -> bool:
    return bool(encode(dict(one), lambda a: a.digest()) == encode(dict(other), lambda a: a.digest()))


@given(st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 10**6), max_size=8), max_size=12))
def test_states_are_the_same_on_the_disk(writes: list[dict[str, int]]) -> None:
    small, large, latest = MemoryClientStates(1500), MemoryClientStates(), {}  # type: ignore[var-annotated]
    for sequence, write in enumerate(writes, 1):
        for states in (small, large):
            states.write(sequence, {name: state(n) for name, n in write.items()})
        latest |= write
        assert small._used <= 1500
        for name in "abcdefgh":
            assert small.stateful([name]) == large.stateful([name]) == frozenset({name} & latest.keys())
            wanted = state(latest[name]) if name in latest else {}
            assert same(small.read(name), wanted)
            assert same(large.read(name), wanted)


def test_many_states_stay_out_of_memory() -> None:
    states = MemoryClientStates(100_000)
    for n in range(300):
        states.write(n + 1, {str(n): {"a": np.full(1000, n)}})
    assert states._used <= 100_000
    assert all(states.read(str(n))["a"].tolist() == [n] * 1000 for n in (0, 1, 150, 298, 299))

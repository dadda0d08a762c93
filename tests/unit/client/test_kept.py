from __future__ import annotations

from typing import Any

from umbel.client.kept import Kept


def names(kept: Kept) -> list[str]:
    return list(kept._values)


def test_who_was_asked_longest_ago_goes_first() -> None:
    kept = Kept(3, 1000)
    for name in "abc":
        kept.keep(name, name.upper(), 1)
    assert kept["a"] == "A"
    kept.keep("d", "D", 1)
    assert names(kept) == ["c", "a", "d"]
    assert "b" not in kept


def test_memory_bounds_it_too() -> None:
    kept = Kept(100, 1000)
    for n in range(20):
        kept.keep(str(n), n, 300)
    assert names(kept) == ["17", "18", "19"]
    kept.keep("large", 0, 5000)
    assert names(kept) == ["large"], "one is always kept"
    kept.keep("next", 0, 1)
    assert names(kept) == ["next"]


def test_what_is_loaded_into_memory_that_was_left_counts_all_the_same() -> None:
    kept = Kept(100, 1000)
    for n in range(50):
        kept.keep(str(n), n, 300 if n < 4 else 0)
    assert names(kept) == ["47", "48", "49"]


def test_what_takes_no_memory_is_bounded_by_number() -> None:
    kept: Any = Kept(10, 1000)
    for n in range(50):
        kept.keep(str(n), n, 0 if n % 2 else -5)
    assert len(names(kept)) == 10

"""What is said in short arrives in full."""

from __future__ import annotations

import pickle
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from umbel.simulation.messages import Cohort
from umbel.simulation.units import Units, in_short

NAMES = st.lists(st.text(alphabet=st.characters(codec=None), max_size=4))  # NUL and lone surrogates, too


def heard(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value, protocol=5))  # noqa: S301  # our own


@given(names=NAMES)
def test_a_cohort(names: list[str]) -> None:
    sent = Cohort(names, None, {"a": {"b": 1}}, {}, frozenset(names[:1]))
    assert heard(sent) == sent


@given(names=st.lists(st.text(), min_size=1), places=st.lists(st.integers(0, 10**6)))
def test_clients_of_a_cohort(names: list[str], places: list[int]) -> None:
    chosen = [place % len(names) for place in places]
    plain, known = (Cohort(names, None, {}, labels, frozenset()) for labels in ({}, {"": {"site": "eu"}}))
    for cohort in (plain, known):
        assert [client.name for client in cohort.clients(chosen)] == [names[place] for place in chosen]
        assert cohort.clients(range(1, len(names))) == [cohort.client(i) for i in range(1, len(names))]


@given(st.lists(st.lists(st.integers(1, 3), max_size=6), max_size=4))
def test_units(sizes: list[list[int]]) -> None:
    units, tasks, expected = Units(), 0, []
    for more in sizes:
        units.extend(Units.of(more, tasks))
        for size in more:
            expected.append(range(tasks, tasks + size))
            tasks += size
    for each in (units, heard(units), units.since(0)):
        assert [each[i] for i in range(len(each))] == expected
    single = [i for i, unit in enumerate(expected) if len(unit) == 1]
    assert [*(units.singles(single) or ())] == [expected[i].start for i in single]
    assert (units.singles(range(len(expected))) is None) == (len(single) < len(expected))


@given(st.lists(st.integers(0, 20)))
def test_numbers_in_short(numbers: list[int]) -> None:
    assert [*in_short(numbers)] == numbers

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from umbel.client.state import OURS, ReadOnly, closed, opened, unshared
from umbel.errors import UsageError
from umbel.testing.promise import read_back

NUMBERS = st.one_of(st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.none())
ARRAYS = hnp.arrays(
    st.sampled_from(["f8", "f4", ">f4", "i8", "u1", "?", "c16", "U3"]), hnp.array_shapes(min_dims=0, min_side=0)
)


@given(st.dictionaries(st.text().filter(lambda name: not name.startswith(OURS)), NUMBERS | ARRAYS))
def test_what_is_kept_has_the_types_that_it_has_when_it_is_read_back(state: dict[str, Any]) -> None:
    kept = closed(state)
    read = read_back(kept)
    assert kept.keys() == read.keys()
    for name, value in kept.items():
        assert type(value) is type(read[name])
        if isinstance(value, np.ndarray):
            assert (value.dtype, value.shape) == (read[name].dtype, read[name].shape)
            assert value.tobytes() == read[name].tobytes()
        else:
            assert repr(value) == repr(read[name])


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (np.float64(2.5), 2.5),
        (np.float32(2.5), 2.5),
        (np.int8(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.bytes_(b"a"), b"a"),
    ],
)
def test_numpys_numbers_become_pythons(value: Any, kept: Any) -> None:
    (got,) = closed({"x": value}).values()
    assert (type(got), got) == (type(kept), kept)


class Kind(np.ndarray):
    """An array that would be read back as a plain one."""


class Own(int):
    """A number that would be read back as another."""


@pytest.mark.parametrize(
    "value",
    [
        [1],
        {"a": 1},
        (1,),
        {1},
        object(),
        Own(3),
        1j,
        np.array([None]),
        np.zeros(1, [("a", int)]),
        np.datetime64(0, "s"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_its_name(value: Any) -> None:
    with pytest.raises(UsageError, match=r"ctx\.state\['momentum'\] is a "):
        closed({"momentum": value})


@pytest.mark.parametrize("value", [np.ma.array([1.0, 2.0], mask=[False, True]), np.ma.array([1.0]), np.ma.masked])
def test_a_mask_is_not_dropped(value: Any) -> None:
    with pytest.raises(UsageError, match=r"ctx\.state\['momentum'\] has a mask\n.*filled"):
        closed({"momentum": value})


@pytest.mark.parametrize("name", [3, None, ("a",), f"{OURS}local", np.str_("a")])
def test_a_name_is_plain_text_and_not_ours(name: Any) -> None:
    with pytest.raises(UsageError, match=r"ctx\.state has the name"):
        closed({name: 1})


def test_nobody_shares_a_kept_array() -> None:
    mine = np.ones(3)
    kept = closed({"x": mine})
    mine[0] = 7
    assert kept["x"].tolist() == [1, 1, 1]
    seen = opened(kept, writable=True)
    seen["x"] += 1
    assert kept["x"].tolist() == [1, 1, 1]
    only = opened(kept, writable=False)
    with pytest.raises(ValueError, match="read-only"):
        only["x"] += 1
    assert kept["x"].flags.writeable
    assert type(closed({"x": np.ones(2).view(Kind)})["x"]) is np.ndarray


def test_ours_is_not_shown() -> None:
    assert opened({f"{OURS}local": 1, "x": 2}, writable=True) == {"x": 2}


def test_a_read_only_mapping_reads_like_any_and_refuses_each_change() -> None:
    values = {"a": 1, "b": 2}
    mapping = ReadOnly(values, "ctx.config", "copy it")
    assert dict(mapping) == values
    assert (mapping["a"], mapping.get("c", 3), "b" in mapping, len(mapping)) == (1, 3, True, 2)
    assert {**mapping} == values
    assert mapping == values
    assert repr(mapping) == repr(values)
    changes: list[Any] = [
        lambda: mapping.__setitem__("a", 2),
        lambda: mapping.__delitem__("a"),
        lambda: mapping.update(a=2),
        lambda: mapping.pop("a"),
        mapping.popitem,
        mapping.clear,
        lambda: mapping.setdefault("c", 1),
    ]
    for change in changes:
        with pytest.raises(UsageError, match=r"ctx\.config is read-only(?s:.*)copy it"):
            change()
    assert values == {"a": 1, "b": 2}
    with pytest.raises(KeyError):
        mapping["c"]


def test_it_says_whether_anyone_looked() -> None:
    for look in (lambda m: m["a"], list, len, lambda m: m.get("z"), lambda m: "a" in m):
        mapping = ReadOnly({"a": 1}, "ctx.site", "")
        assert not mapping.used
        look(mapping)
        assert mapping.used


def test_nested_lists_and_dictionaries_are_copies() -> None:
    config = {"layers": [1, {"width": [2]}], "name": "x"}
    copy = unshared(config)
    copy["layers"][1]["width"].append(3)
    assert config == {"layers": [1, {"width": [2]}], "name": "x"}

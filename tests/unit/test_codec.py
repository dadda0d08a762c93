from __future__ import annotations

import functools
import json
import math
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import umbel
from umbel.arrays import Arrays
from umbel.codec import decode, describe, encode, fingerprint, loaded_classes, name_of, own_classes
from umbel.errors import FormatError, UsageError
from umbel.optimize.adam import AdamState


@dataclass(frozen=True)
class Pair:
    left: Any
    right: Any = None
    sum: Any = field(init=False, default=0)


class Point(NamedTuple):
    x: int


class Phase(IntEnum):
    WARM = 1
    COLD = 2


class Blobs:
    """Keeps arrays by their place."""

    def __init__(self) -> None:
        self.kept: list[Arrays] = []

    def place(self, arrays: Arrays) -> str:
        self.kept.append(arrays)
        return str(len(self.kept) - 1)

    def fetch(self, name: str) -> Arrays:
        return self.kept[int(name)]


def there_and_back(value: Any) -> Any:
    blobs = Blobs()
    text = json.dumps(encode(value, blobs.place))
    return decode(json.loads(text), blobs.fetch, allow=loaded_classes)


def same(mine: Any, its: Any) -> bool:
    """The same value, bit by bit, of the same type."""
    if isinstance(mine, np.ndarray):
        return (
            isinstance(its, np.ndarray)
            and (mine.dtype, mine.shape) == (its.dtype, its.shape)
            and mine.tobytes() == its.tobytes()
        )
    if isinstance(mine, dict):
        return isinstance(its, dict) and list(mine) == list(its) and all(same(mine[k], its[k]) for k in mine)
    if isinstance(mine, list | tuple):
        return type(mine) is type(its) and len(mine) == len(its) and all(map(same, mine, its))
    if isinstance(mine, Pair):
        return isinstance(its, Pair) and same(mine.left, its.left) and same(mine.right, its.right)
    if isinstance(mine, float) and math.isnan(mine):
        return isinstance(its, float) and math.isnan(its)
    if isinstance(mine, float):
        return isinstance(its, float) and (mine, math.copysign(1, mine)) == (its, math.copysign(1, its))
    return type(mine) is type(its) and bool(mine == its)


dtypes = st.sampled_from(["f8", "f4", "f2", ">f4", "i1", "u8", "?", "c16", "<U3", "S2", "M8[s]"])
numbers = st.none() | st.booleans() | st.integers() | st.floats()
leaves = (
    numbers
    | st.text()
    | st.binary()
    | npst.arrays(dtypes, npst.array_shapes(min_dims=0, min_side=0, max_dims=3))
    | st.integers(1, 40).map(lambda n: np.arange(n * 50.0).reshape(n, 50))  # some are large enough for a blob
    | st.builds(lambda v: Arrays({"w": v}), npst.arrays("f4", (3,)))
)
keys = st.text() | st.integers() | st.booleans() | st.tuples(st.integers(), st.text())
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=8,
)


@given(values)
def test_what_was_written_is_read(value: Any) -> None:
    assert same(there_and_back(value), value)


@given(st.dictionaries(st.sampled_from(["$arrays", "$class", "$tuple", "$", "a"]), numbers | st.text(), min_size=1))
def test_a_mapping_of_the_users_is_never_taken_for_a_tag(value: dict[str, Any]) -> None:
    assert same(there_and_back(value), value)


json_values = st.recursive(
    numbers | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.builds(
            lambda tag, v: {tag: v},
            st.sampled_from(["$arrays", "$blob", "$bytes", "$array", "$turned", "$tuple", "$map", "$class"]),
            inner,
        )
        | st.builds(lambda v: {"$array": ["<f4", [2], v]}, inner)
        | st.builds(lambda v: {"$map": [[v, v]]}, inner)
        | st.builds(lambda t, v: {"$scalar": [t, v]}, st.sampled_from(["<f4", "|u1", "O", "V9", "<M8[s]"]), inner)
        | st.builds(lambda v: {"$class": "umbel.optimize.adam:Adam", "fields": {"lr": v}}, inner)
        | st.builds(lambda p, v: {"$class": p, "fields": {"x": v}}, st.text(), inner)
    ),
    max_leaves=6,
)


@example({"$scalar": ["<f4", 1e300]})
@given(json_values)
def test_anything_else_is_refused_and_nothing_worse_happens(data: Any) -> None:
    def fetch(name: str) -> Arrays:
        raise FormatError(f"no blob {name}")

    try:
        decode(data, fetch)
    except FormatError as error:
        assert str(error)


@pytest.mark.parametrize(
    "path",
    [
        "os:environ",
        "umbel.arrays:Arrays",
        "umbel.torch.module:torch",
        "umbel.errors:sys",
        "umbel.nowhere:X",
        "umbel",
        "",
    ],
)
def test_only_values_of_our_own_are_made_by_default(path: str) -> None:
    with pytest.raises(FormatError):
        decode({"$class": path, "fields": {}}, Blobs().fetch)


@pytest.mark.parametrize("data", [{"$bytes": "eA==!"}, {"$bytes": "e"}, {"$array": ["<u1", [1], "eA=\n="]}])
def test_bytes_that_are_not_base64_are_refused(data: Any) -> None:
    with pytest.raises(FormatError):
        decode(data, Blobs().fetch)


def test_strategies_and_their_states_are_values() -> None:
    strategy = umbel.fed_adam(
        config={"lr": umbel.schedule.cosine(0.1, rounds=20)}, share=umbel.entries("*", but="*.bn*")
    )
    blobs = Blobs()
    assert decode(encode(strategy, blobs.place), blobs.fetch, allow=own_classes) == strategy
    model = Arrays({"w": np.ones(3)})
    found = decode(encode(AdamState(model, model), blobs.place), blobs.fetch)
    assert found == AdamState(model, model)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": [1, {"b": object()}]}, r"it\['a'\]\[1\]\['b'\] is a object"),
        ((0, {1, 2}), r"it\[1\] is a set"),
        (Pair(left=Point(1)), r"it.left is a Point"),
        (np.array([object()]), "it is an array of Python objects"),
        (np.zeros(2, [("a", "f4")]), "it is an array of "),
        (Counter("abc"), "it is a Counter, and would be read back as a dict"),
        ({"d": defaultdict(list)}, r"it\['d'\] is a defaultdict"),
        (np.ma.array([1.0, 2.0], mask=[True, False]), "it is an array with a mask\n.*say what stands there"),
        ([10**5000], r"it\[0\] is an integer of 16,610 bits"),
        (np.complex64(1j), "it is a complex64"),
        (np.datetime64("2020-01-01"), "it is a datetime64"),
        ({"p": Phase.WARM}, r"it\['p'\] is a Phase, and would be read back as an int"),
        (lambda: 1, "it is a function"),
        (Pair, "it is a type"),
    ],
)
def test_what_cannot_be_kept_is_named_by_its_place(value: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        encode(value, Blobs().place, where="it")
    assert refused.value.advice


def test_a_class_that_cannot_be_found_again_is_refused() -> None:
    @dataclass
    class Local:
        x: int

    with pytest.raises(UsageError, match="a class defined inside a function"):
        encode(Local(1), Blobs().place)


@pytest.mark.parametrize("given", [OrderedDict(a=1), MappingProxyType({"a": 1})])
def test_other_mappings_become_dicts(given: Mapping[str, int]) -> None:
    assert there_and_back(given) == {"a": 1}


@pytest.mark.parametrize(
    "given", [np.float64(0.1), np.float32(0.1), np.float16("nan"), np.int64(-3), np.uint8(250), np.bool_(True)]
)
def test_numpys_numbers_keep_their_type_so_that_arithmetic_goes_on_as_before(given: Any) -> None:
    found = there_and_back({"it": given})["it"]
    assert type(found) is type(given)
    assert found.tobytes() == given.tobytes()
    assert fingerprint(given) == fingerprint(given.item()), "and a recipe does not tell them apart"


def test_numpys_texts_become_pythons() -> None:
    assert same(there_and_back([np.str_("a"), np.bytes_(b"b")]), ["a", b"b"])


@pytest.mark.parametrize("n", [3, 3000])
def test_an_array_keeps_its_order_in_memory_on_which_sums_depend(n: int) -> None:
    array = np.arange(2.0 * n).reshape(n, 2).T
    found = there_and_back(array)
    assert same(found, array)
    assert found.flags.f_contiguous
    found[0] = 1  # as writable as it was
    assert describe(array) == describe(array.copy()), "but a recipe does not tell them apart"


def test_enumerations_have_their_names_in_descriptions() -> None:
    assert describe([Phase.WARM, Phase.COLD]) == [f"{__name__}:Phase.WARM", f"{__name__}:Phase.COLD"]


def test_numpys_bytes_become_pythons() -> None:
    assert same(there_and_back(np.bytes_(b"x")), b"x")


@pytest.mark.parametrize(
    "given", [np.complex64(1), np.longdouble(1), np.datetime64("2020"), np.timedelta64(1), np.timedelta64(1, "s")]
)
def test_numpys_numbers_that_json_lacks_are_refused(given: Any) -> None:
    with pytest.raises(UsageError, match=r"x\['n'\] is a \w+, which cannot be kept or sent"):
        encode({"n": given}, Blobs().place, where="x")


def test_a_large_array_is_a_blob_and_a_small_one_is_not() -> None:
    blobs = Blobs()
    encode({"small": np.zeros(512), "large": np.zeros(513)}, blobs.place)
    assert [arrays.nbytes for arrays in blobs.kept] == [513 * 8]
    found = there_and_back(np.zeros(513))
    found[0] = 1  # as writable as it was


def test_descriptions_tell_values_apart() -> None:
    def make(n: int) -> list[Any]:
        return [n, {"a": n}, Pair(n), {n}, functools.partial(max, n), np.arange(n), Arrays({"w": np.arange(n)}), [n, n]]

    texts = [json.dumps(describe(value)) for n in (1, 2) for value in make(n)]
    assert len(set(texts)) == len(texts)
    assert [fingerprint(v) for v in make(1)] == [fingerprint(v) for v in make(1)]


class Mine:
    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (max, "builtins:max"),
        (Mine, f"{__name__}:Mine"),
        (Mine(), f"{__name__}:Mine"),
        (Mine().__call__, f"{__name__}:Mine.__call__"),
        (functools.partial(max), "functools:partial"),
        (np.mean, "numpy:mean"),
        (object(), "builtins:object"),
    ],
)
def test_names_have_no_addresses(value: Any, name: str) -> None:
    assert name_of(value) == name
    assert "0x" not in json.dumps(describe(value))


def test_a_long_integer_is_described_to_its_last_bit() -> None:
    assert fingerprint(10**5000) == fingerprint(10**5000) != fingerprint(10**5000 + 1)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from umbel import Arrays
from umbel.errors import EntryError, FormatError, UsageError
from umbel.spec import entries


@pytest.fixture
def model() -> Arrays:
    return Arrays({"w": np.arange(6.0).reshape(2, 3), "b": np.zeros(3, np.float32), "n": np.array(4)})


def test_values_do_not_change(model: Arrays) -> None:
    with pytest.raises(ValueError, match="read-only"):
        model["w"][0, 0] = 1


def test_the_constructor_copies() -> None:
    source = np.zeros(3)
    model = Arrays({"w": source})
    source[:] = 1
    assert model["w"].sum() == 0


def test_an_alias_shares_its_memory_and_travels_once(tmp_path: Path) -> None:
    model = Arrays({"embed": np.ones((4, 2)), "b": np.zeros(2)}, aliases={"head": "embed"})
    assert list(model) == ["embed", "b", "head"]
    assert model.nbytes == 4 * 2 * 8 + 2 * 8
    assert np.shares_memory(model["head"], model["embed"])
    model.save(tmp_path / "m.safetensors")
    assert list(Arrays.load(tmp_path / "m.safetensors")) == ["embed", "b", "head"]
    changed = model.with_values({"head": np.full((4, 2), 3.0)})
    assert changed["embed"][0, 0] == 3


def test_an_alias_of_nothing_is_refused() -> None:
    with pytest.raises(EntryError, match="not stored"):
        Arrays({"a": np.ones(1)}, aliases={"b": "c"})


def test_a_name_is_an_entry_or_an_alias() -> None:
    ours = json.dumps({"names": ["a", "b"], "aliases": {"a": "b"}})
    table: dict[str, Any] = {"__metadata__": {"umbel": ours}}
    for place, name in enumerate("ab"):
        table[name] = {"dtype": "F32", "shape": [1], "data_offsets": [4 * place, 4 * place + 4]}
    header = json.dumps(table).encode()
    with pytest.raises(FormatError, match="'a' is an entry and also an alias of 'b'"):
        Arrays.from_bytes(len(header).to_bytes(8, "little") + header + bytes(8))


@pytest.mark.parametrize("value", [np.array(["a"]), np.array([1j]), np.array([object()]), [[1], [1, 2]]])
def test_what_cannot_be_carried_is_refused_by_name(value: object) -> None:
    with pytest.raises(EntryError, match="'w'"):
        Arrays({"w": value})


def test_an_integer_cannot_be_trained() -> None:
    with pytest.raises(EntryError, match="mean of integers"):
        Arrays({"n": 3}, roles={"n": "trained"})


def test_arithmetic_names_the_entry_that_does_not_match(model: Arrays) -> None:
    with pytest.raises(EntryError, match="'b'"):
        model + model.select(entries("*", but="b"))
    with pytest.raises(UsageError, match="str"):
        model + "x"  # type: ignore[operator]  # what is tested


def test_big_endian_and_strided_arrays_are_carried() -> None:
    big = np.arange(6, dtype=">f4").reshape(2, 3).T
    assert np.array_equal(Arrays({"w": big})["w"], big)


def test_half_precision_is_computed_in_float32() -> None:
    a = Arrays({"x": np.array([60000.0], np.float16)})
    assert (a / 3 * 3)["x"].dtype == np.float16
    with pytest.warns(RuntimeWarning, match="overflow"):  # as NumPy does
        assert np.isinf((a + a)["x"][0])
    assert a.norm() == 60000.0


def test_the_norm_is_over_trained_entries_in_float64() -> None:
    arrays = Arrays({"x": np.full(4, 1e30, np.float32), "s": np.ones(5)}, roles={"s": "buffer"})
    assert arrays.norm() == pytest.approx(2e30)
    for large in (1e200, 1e-200, 1.0, 0.0):  # whose squares have no place in float64
        assert Arrays({"x": np.array([3.0, -4.0]) * large}).norm() == pytest.approx(5 * large, abs=0)
    assert np.isnan(Arrays({"x": np.array([np.nan, 1e200])}).norm())
    assert np.isinf(Arrays({"x": np.array([np.inf, 1.0])}).norm())


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ([0.0, 1.0], [-0.0, 1.0], "differs in 1 of 2 elements, by up to 0"),
        ([np.nan, 1.0], [np.nan, 3.0], "differs in 1 of 2 elements, by up to 2"),
        ([np.inf, 1.0], [np.inf, 3.0], "differs in 1 of 2 elements, by up to 2"),
        ([np.inf, 1.0], [0.0, 1.0], "differs in 1 of 2 elements, by up to inf"),
        ([1.7e308], [-1.7e308], "differs in 1 of 1 elements, by up to inf"),
        ([2**63 - 1, 5], [-(2**63), 5], "differs in 1 of 2 elements, by up to 1.84467e+19"),
        ([True, False], [True, True], "differs in 1 of 2 elements, by up to 1"),
        (2.0, 3.5, "differs in 1 of 1 elements, by up to 1.5"),
        (b"abc", b"abe", "differs in 1 of 3 elements, by up to 2"),
    ],
)
def test_a_comparison_counts_what_differs(one: Any, other: Any, says: str) -> None:
    assert Arrays({"x": one}).difference(Arrays({"x": other})) == f"entry 'x' {says}"


@pytest.mark.parametrize("value", [b"x", b"xy", b"", b"longer"])
def test_a_payload_is_replaced_by_one_of_its_size(value: bytes) -> None:
    model = Arrays({"tree": b"12345"})
    assert model.with_values({"tree": b"54321"})["tree"] == b"54321"
    with pytest.raises(EntryError, match=r"'tree' has shape \(5,\)"):
        model.with_values({"tree": value})


def test_a_missing_file_is_missing_and_a_short_one_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Arrays.load(tmp_path / "nothing")
    for text in (b"", b"123", b"12345678", (10**6).to_bytes(8, "little")):
        (tmp_path / "bad").write_bytes(text)
        with pytest.raises(FormatError, match="bad"):
            Arrays.load(tmp_path / "bad")


def test_saving_leaves_nothing_behind_when_it_fails(tmp_path: Path, model: Arrays) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(OSError, match="m"):
        model.save(tmp_path / "m")
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_casting_changes_floats_only(model: Arrays) -> None:
    small = model.astype("BF16")
    assert [e.dtype for e in small.spec.entries] == ["BF16", "BF16", "I64"]
    assert small["w"].dtype == np.float32
    with pytest.raises(UsageError, match="F64"):
        model.astype("I8")


@pytest.mark.parametrize("masked", [np.ma.array([1.0, 2.0], mask=[False, True]), np.ma.array([1.0]), np.ma.masked])
def test_a_mask_is_not_dropped(masked: Any) -> None:
    with pytest.raises(EntryError, match=r"entry 'w' has a mask\n.*filled"):
        Arrays({"w": masked})
    with pytest.raises(EntryError, match=r"entry 'w' has a mask\n.*filled"):
        Arrays({"w": np.zeros(2)}).with_values({"w": masked})


def test_stored_arrays_are_kept_only_when_nobody_can_write_to_them(model: Arrays) -> None:
    assert model.stored() is model.stored()
    assert [a.tobytes() for a in model.stored()] == [model.raw(e.name).tobytes() for e in model.spec.placed]
    open_for_writing = model.thawed()
    assert all(a.flags.writeable for a in open_for_writing.stored())
    assert not any(a.flags.writeable for a in open_for_writing.freeze().stored())


def test_tiny_arrays_are_bytes_until_somebody_looks() -> None:
    given = {"w": np.arange(3.0), "n": np.array(7), "b": np.ones((2, 2), np.float32)}
    arrays = Arrays(given)
    packed = arrays.packed()
    given["w"][:] = 9
    assert arrays.packed() is packed  # no copy
    assert arrays["w"].tolist() == [0, 1, 2]
    assert arrays.packed() == packed == arrays.data.tobytes()
    assert Arrays.from_bytes(arrays.to_bytes()) == arrays
    assert not arrays.writable
    with pytest.raises(ValueError, match="read-only"):
        arrays["w"][0] = 1

"""Arrays over one buffer: what goes in comes out, from any file, and arithmetic is NumPy's."""

from __future__ import annotations

import json
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from umbel import Arrays
from umbel.bfloat16 import from_bfloat16, to_bfloat16
from umbel.errors import FormatError
from umbel.spec import FLOATS, STORAGE, Entries

DTYPES = ["<f8", "<f4", "<f2", "<i8", "<i4", "<i2", "i1", "<u8", "<u4", "<u2", "u1", "?"]
NAMES = st.text(min_size=1, max_size=8).filter(lambda n: n != "__metadata__" and n.isprintable())
VALUES = st.one_of(
    hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)),
    st.binary(max_size=20),
)
MODELS = st.dictionaries(NAMES, VALUES, max_size=6)


def same(a: Any, b: Any) -> bool:
    if isinstance(b, bytes):
        return bool(a == b)
    return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())


@given(MODELS)
def test_what_goes_in_comes_out(values: Mapping[str, Any]) -> None:
    arrays = Arrays(values)
    assert list(arrays) == list(values)
    assert all(same(arrays[name], value) for name, value in values.items())
    for copy in (Arrays.from_bytes(bytes(arrays.to_bytes())), pickle.loads(pickle.dumps(arrays))):  # noqa: S301  # ours
        assert copy == arrays
        assert copy.spec == arrays.spec
        assert bytes(copy.to_bytes()) == bytes(arrays.to_bytes())
    assert arrays.spec.canonical


@given(MODELS)
def test_a_file_of_ours_is_read_by_the_safetensors_library(values: Mapping[str, Any]) -> None:
    read = safetensors.numpy.load(bytes(Arrays(values).to_bytes()))
    assert read.keys() == values.keys()
    assert all(same(read[n].tobytes() if isinstance(v, bytes) else read[n], v) for n, v in values.items())


@given(st.dictionaries(NAMES, VALUES.filter(lambda v: isinstance(v, np.ndarray)), max_size=6))
def test_a_foreign_file_is_read_and_laid_out_anew(values: Mapping[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "foreign.safetensors"
        safetensors.numpy.save_file(dict(values), path)
        arrays = Arrays.load(path)
        assert {n: arrays[n].tobytes() for n in arrays} == {n: v.tobytes() for n, v in values.items()}
        assert arrays.canonical() == Arrays({n: values[n] for n in arrays})
        arrays.save(path)
        assert Arrays.load(path) == arrays


@given(MODELS)
def test_every_array_is_aligned(values: Mapping[str, Any]) -> None:
    arrays = Arrays(values)
    for e in arrays.spec.entries:
        assert arrays.raw(e.name).ctypes.data % STORAGE[e.dtype].itemsize == 0 or not e.nbytes
    assert len(arrays.spec.header) % 64 == 0


@given(
    padding=st.integers(0, 16),
    before=st.integers(0, 9),
    dtype=st.sampled_from(["<f8", "<f4", "<f2", "<i8"]),
    data=hnp.arrays("<f4", 6, elements=st.floats(-99, 99, width=32)),
)
def test_a_file_that_is_not_aligned_is_copied_so_that_it_is(padding: int, before: int, dtype: str, data: Any) -> None:
    values = data.astype(dtype)
    code = next(code for code, storage in STORAGE.items() if storage == np.dtype(dtype))
    table = {
        "odd": {"dtype": "U8", "shape": [before], "data_offsets": [0, before]},
        "x": {"dtype": code, "shape": [2, 3], "data_offsets": [before, before + values.nbytes]},
    }
    header = json.dumps(table).encode() + b" " * padding
    arrays = Arrays.from_bytes(len(header).to_bytes(8, "little") + header + bytes(before) + values.tobytes())
    assert same(arrays["x"], values.reshape(2, 3))
    assert arrays["x"].flags.aligned
    assert all(arrays.flat(run).flags.aligned for run in arrays.spec.runs)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b'{"a":{"dtype":"F32","shape":[0,2147483648,2147483648],"data_offsets":[0,0]}}', "impossible shape"),
        (b'{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,0],'
         b'"data_offsets":[0,0]}}', "impossible shape"),
        (b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}',
         "a name stands twice"),
        (b'{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}', "impossible shape"),
        (b'{"a":{"dtype":"F8_E4M3","shape":[0],"data_offsets":[0,0]}}', "dtype 'F8_E4M3'"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "not JSON"),
    ],
)  # fmt: skip
def test_a_header_that_lies_is_refused_with_the_reason(header: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        Arrays.from_bytes(len(header).to_bytes(8, "little") + header)


@given(st.binary(max_size=300))
def test_garbage_is_refused_with_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(FormatError):
        Arrays.from_bytes(data)


@given(MODELS, st.data())
def test_a_damaged_file_is_refused_or_read_within_its_bounds(values: Mapping[str, Any], data: st.DataObject) -> None:
    good = bytearray(Arrays(values).to_bytes())
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    try:
        arrays = Arrays.from_bytes(bytes(good[:cut]))
    except FormatError:
        return
    for name in arrays:
        arrays[name]


JSON = st.recursive(
    st.one_of(st.none(), st.integers(-5, 70), st.text(max_size=5), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
)
ROWS = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.one_of(st.sampled_from(list(STORAGE)), JSON),
        "shape": st.one_of(st.lists(st.integers(-1, 5), max_size=3), JSON),
        "data_offsets": st.one_of(st.lists(st.integers(-1, 70), min_size=2, max_size=2), JSON),
    },
)


@given(
    st.dictionaries(st.one_of(st.just("__metadata__"), NAMES), st.one_of(ROWS, JSON), max_size=3),
    st.binary(max_size=64),
)
def test_a_hostile_header_is_refused_or_read_within_its_bounds(table: Mapping[str, Any], data: bytes) -> None:
    text = json.dumps(table).encode()
    try:
        arrays = Arrays.from_bytes(len(text).to_bytes(8, "little") + text + data)
    except FormatError:
        return
    assert arrays.nbytes == len(data)
    for name in arrays:
        arrays[name]


@given(hnp.arrays("<f4", st.integers(0, 200), elements=st.floats(width=32)))
def test_bfloat16_rounds_as_ml_dtypes_does(values: np.ndarray[Any, Any]) -> None:
    check_bfloat16(values)


@pytest.mark.parametrize("below", [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])  # 0x8000: halfway, to even
def test_bfloat16_rounds_from_between_any_two_values(below: int) -> None:
    check_bfloat16((np.arange(2**16, dtype="<u4") << np.uint32(16) | np.uint32(below)).view("<f4"))


def check_bfloat16(values: np.ndarray[Any, Any]) -> None:
    with np.errstate(all="ignore"):
        expected = values.astype(ml_dtypes.bfloat16)
    ours = to_bfloat16(values)
    nan = np.isnan(values)
    assert np.array_equal(ours[~nan], expected.view("<u2")[~nan])
    assert np.isnan(from_bfloat16(ours)[nan]).all()
    assert Arrays({"x": expected})["x"].tobytes() == expected.astype("<f4").tobytes() or nan.any()


FLOAT = hnp.arrays(st.sampled_from(["<f8", "<f4"]), st.just((3, 2)), elements=st.floats(-100, 100, width=32))


@given(FLOAT, FLOAT, st.floats(0.5, 3, width=32))
def test_arithmetic_is_numpys_in_the_dtype_of_the_left(a: Any, b: Any, k: float) -> None:
    left, right = Arrays({"x": a, "n": 7}), Arrays({"x": b, "n": 9})
    for mine, its in (
        (left + right, a + b),
        (left - right * k, a - b.dtype.type(k) * b),
        (k - left, a.dtype.type(k) - a),
        (np.sqrt(left * left), np.sqrt(a * a)),
        (left**2, a**2),
        (-left / k, -a / a.dtype.type(k)),
    ):
        np.testing.assert_allclose(mine["x"], its.astype(a.dtype), rtol=1e-6, atol=1e-5)
        assert mine["x"].dtype == a.dtype
        assert mine["n"] == 7, "integers keep the left operand's value"


@given(MODELS, st.sampled_from(["trained", "buffer", "counter", "local"]))
def test_runs_cover_the_data_once_and_in_order(values: Mapping[str, Any], role: Any) -> None:
    wanted = {
        n: role for n, v in values.items()
        if isinstance(v, np.ndarray) and (v.dtype.kind == "f" or role in ("counter", "local"))
    }  # fmt: skip
    spec = Arrays(values, roles=wanted).spec
    position = 0
    for run in spec.runs:
        assert run.offset == position
        position += run.size * STORAGE[run.dtype].itemsize
    assert position == spec.nbytes
    assert len(spec.runs) <= len({(e.dtype, e.role) for e in spec.entries})


@given(MODELS, st.data())
def test_selecting_and_merging_back_gives_the_same_values(values: Mapping[str, Any], data: st.DataObject) -> None:
    arrays = Arrays(values)
    chosen = data.draw(st.sets(st.sampled_from(sorted(values)))) if values else set()
    some, rest = arrays.select(lambda e: e.name in chosen), arrays.select(lambda e: e.name not in chosen)
    both = some.merge(rest)
    assert {n: both.raw(n).tobytes() for n in both} == {n: arrays.raw(n).tobytes() for n in arrays}


@given(MODELS)
def test_a_difference_names_the_entry(values: Mapping[str, Any]) -> None:
    arrays = Arrays(values)
    assert arrays.difference(Arrays(values)) == ""
    for e in arrays.spec.entries:
        if e.dtype in FLOATS and e.size and e.role == "trained":
            changed = arrays.with_values({e.name: np.full(e.shape, 3.25)})
            again = arrays.with_values({e.name: np.full(e.shape, 3.5)})
            assert repr(e.name) in changed.difference(again)
            assert changed.difference(again, atol=0.5) == ""


def test_roles_are_chosen_by_pattern() -> None:
    arrays = Arrays({"a.w": np.ones(2), "a.bn": np.ones(2)}, roles=[Entries(("*.bn",), role="buffer")])
    assert [e.role for e in arrays.spec.entries] == ["trained", "buffer"]

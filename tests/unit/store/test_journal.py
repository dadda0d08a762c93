from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.errors import CorruptFile, StoreError
from umbel.store.journal import START, Journal, Line

values = st.lists(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    ),
    min_size=1,
    max_size=6,
)


@contextmanager
def journal(path: Path, *, precious: bool = True) -> Iterator[Journal]:
    opened = Journal(path, precious=precious)
    try:
        yield opened
    finally:
        opened.close()


def write(path: Path, items: list[Any]) -> list[Line]:
    lines = [START]
    with journal(path) as opened:
        for item in items:
            lines.append(opened.append(item, after=lines[-1], sync=False))
    return lines[1:]


@contextmanager
def written(items: list[Any]) -> Iterator[tuple[Path, list[Line]]]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal"
        yield path, write(path, items)


def read(path: Path, *, precious: bool = True) -> list[Any]:
    with journal(path, precious=precious) as opened:
        return [line.value for line in opened.read()]


@given(values)
def test_what_was_appended_is_read(items: list[Any]) -> None:
    with written(items) as (path, _):
        assert read(path) == items


@given(values, st.data())
def test_a_journal_that_ends_anywhere_gives_the_lines_that_are_whole(items: list[Any], data: st.DataObject) -> None:
    with written(items) as (path, lines):
        end = data.draw(st.integers(0, lines[-1].end))
        path.write_bytes(path.read_bytes()[:end])
        assert read(path) == items[: sum(line.end <= end for line in lines)]


@given(values, st.data())
def test_a_damaged_byte_is_an_error_that_names_the_line_or_costs_the_last_line(
    items: list[Any], data: st.DataObject
) -> None:
    with written(items) as (path, lines):
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        number = sum(line.end <= place for line in lines)  # from 0
        last = number == len(lines) - 1
        # without its end a line has no end before the next one's, so that the last but one may become the last
        joined = number == len(lines) - 2 and place == lines[number].end - 1
        if last or joined:
            assert read(path) == items[:number]
        else:
            with pytest.raises(CorruptFile, match=rf"journal, line {number + 1} is damaged"):
                read(path)
        assert read(path, precious=False) == items[:number]


@given(values, st.binary(max_size=30))
def test_what_a_loss_of_power_left_of_the_last_line_is_dropped(items: list[Any], left: bytes) -> None:
    with written(items) as (path, _):
        path.write_bytes(path.read_bytes() + left.replace(b" ", b"\n"))
        assert read(path) == items


@given(values, st.data())
def test_a_line_that_is_gone_or_out_of_its_place_is_noticed(items: list[Any], data: st.DataObject) -> None:
    with written([*items, "last"]) as (path, _):
        raw = path.read_bytes().splitlines(keepends=True)
        gone = data.draw(st.integers(0, len(raw) - 2))
        path.write_bytes(b"".join(raw[:gone] + raw[gone + 1 :]))
        if gone == len(raw) - 2:  # what is left of it looks torn
            assert read(path) == items[:gone]
        else:
            with pytest.raises(CorruptFile, match=f"line {gone + 1} "):
                read(path)


@given(values, st.binary(max_size=50))
def test_an_append_removes_what_one_that_was_broken_off_left_behind(items: list[Any], left: bytes) -> None:
    with written(items) as (path, lines):
        path.write_bytes(path.read_bytes() + left)
        with journal(path) as opened:
            opened.append("next", after=lines[-1], sync=True)
        assert read(path) == [*items, "next"]


def test_an_append_after_an_earlier_line_drops_the_later_ones(tmp_path: Path) -> None:
    first, *_ = write(tmp_path / "journal", [1, 2, 3])
    with journal(tmp_path / "journal") as opened:
        opened.append("two", after=first, sync=True)
    assert read(tmp_path / "journal") == [1, "two"]


def test_cut_drops_what_stands_behind(tmp_path: Path) -> None:
    lines = write(tmp_path / "journal", [1, 2, 3])
    with journal(tmp_path / "journal") as opened:
        opened.cut(lines[1])
        assert [line.value for line in opened.read()] == [1, 2]
        opened.cut(START)
        assert opened.read() == []


def test_a_directory_in_its_place_is_an_error_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    with pytest.raises(StoreError, match="journal"):
        Journal(tmp_path / "journal", precious=True)

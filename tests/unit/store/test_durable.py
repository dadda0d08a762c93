from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from umbel.errors import DiskFull
from umbel.store.durable import replace_file

LARGE = 1 << 20


def memory(size: int, begin: int) -> memoryview:
    """Bytes that begin so far behind a page."""
    made = memoryview(mmap.mmap(-1, begin + size + 1))[:-1]
    made[:] = (os.urandom(8191) * (len(made) // 8191 + 1))[: len(made)]
    return made[begin:]


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("begin", [0, 1, 64, 512])
@pytest.mark.parametrize("size", [0, 1, LARGE - 1, LARGE, LARGE + 1, LARGE + 4096, 3 * LARGE + 777])
def test_a_file_is_what_was_written(size: int, begin: int, sync: bool, tmp_path: Path) -> None:
    data = memory(size, begin)
    replace_file(tmp_path / "file", data, sync=sync)
    assert (tmp_path / "file").read_bytes() == data
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("parts", [[4096, 8192], [512, 100, 1], [4096, 1, 4096]])
def test_the_system_may_take_a_part_at_a_time(
    parts: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, data = os.write, memory(LARGE + 5, 0)
    monkeypatch.setattr(os, "write", lambda file, rest: real(file, rest[: parts.pop(0)] if parts else rest))
    replace_file(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == data


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_no_room_is_an_error_and_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_file(tmp_path / "file", b"before")
    real, full = os.write, os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(os, "write", lambda _, data: real(full, data))
    with pytest.raises(DiskFull):
        replace_file(tmp_path / "file", memory(LARGE, 0))
    assert (tmp_path / "file").read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    os.close(full)

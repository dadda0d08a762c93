from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from umbel.arrays import Arrays
from umbel.errors import CorruptFile, StoreError
from umbel.store.blobs import Blobs, read_whole


def arrays(value: float = 1.0) -> Arrays:
    return Arrays({"w": np.full(100, value)})


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def test_what_was_kept_is_fetched(blobs: Blobs) -> None:
    digest = blobs.keep(arrays(), sync=True)
    assert digest == arrays().digest()
    assert blobs.fetch(digest, advice="") == arrays()
    assert blobs.missing([digest]) is None


def test_the_same_arrays_are_written_once(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[object] = []
    real = os.replace

    def replace(old: Path, new: Path) -> None:
        written.append(new)
        real(old, new)

    monkeypatch.setattr(os, "replace", replace)
    for sync, count in ((False, 1), (False, 1), (True, 2), (True, 2), (False, 2)):
        blobs.keep(arrays(), sync=sync)
        assert len(written) == count  # once more to make it sure, and then no more


def test_a_file_of_another_process_is_not_trusted(tmp_path: Path) -> None:
    digest = Blobs(tmp_path).keep(arrays(), sync=False)
    (tmp_path / f"{digest}.safetensors").write_bytes(b"what a loss of power left of it")
    blobs = Blobs(tmp_path)
    blobs.keep(arrays(), sync=True)
    assert blobs.fetch(digest, advice="") == arrays()


def test_damage_is_named_and_the_advice_given(blobs: Blobs) -> None:
    digest = blobs.keep(arrays(), sync=True)
    path = blobs.path(digest)
    for content in (b"", path.read_bytes()[:-1], path.read_bytes()[:-1] + b"\x01", arrays(2.0).to_bytes()):
        path.write_bytes(content)
        with pytest.raises(CorruptFile, match=f"{digest}.safetensors is damaged") as refused:
            blobs.fetch(digest, advice="do this")
        assert refused.value.advice == "do this"
    path.unlink()
    with pytest.raises(CorruptFile, match=f"{digest}.safetensors is gone"):
        blobs.fetch(digest, advice="")
    assert blobs.missing([digest]) == path


def test_sweep_removes_our_own_leftovers_and_nothing_else(blobs: Blobs, tmp_path: Path) -> None:
    old, new = blobs.keep(arrays(1.0), sync=True), blobs.keep(arrays(2.0), sync=True)
    others = ["mine.safetensors", "0123.safetensors", f"{old}.txt", f"{old}.safetensors.bak"]
    for name in (*others, f"{old}.safetensors.tmp"):
        (tmp_path / "blobs" / name).write_text("")
    blobs.sweep({new})
    assert sorted(p.name for p in (tmp_path / "blobs").iterdir()) == sorted([*others, f"{new}.safetensors"])
    assert blobs.keep(arrays(1.0), sync=True) == old  # and is written anew
    assert blobs.fetch(old, advice="") == arrays(1.0)


def test_a_file_in_its_place_is_an_error_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("")
    with pytest.raises(StoreError, match="blobs"):
        Blobs(tmp_path / "blobs")


def test_read_whole_gives_nothing_but_the_whole(tmp_path: Path) -> None:
    arrays().save(tmp_path / "a")
    assert read_whole(tmp_path / "a", arrays().digest()) == arrays()
    assert read_whole(tmp_path / "a", arrays(2.0).digest()) is None
    assert read_whole(tmp_path / "b", arrays().digest()) is None
    old = hashlib.sha256(arrays().to_bytes()).hexdigest()  # as an earlier version named it
    found = read_whole(tmp_path / "a", old)
    assert found == arrays()
    assert found is not None
    assert found.digest() == old
    (tmp_path / "c").mkdir()
    with pytest.raises(StoreError, match="c"):
        read_whole(tmp_path / "c", arrays().digest())

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from umbel.arrays import Arrays
from umbel.engine.history import Row
from umbel.engine.ports import Commit
from umbel.errors import RunError
from umbel.store.blobs import Blobs
from umbel.store.content import Content


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def commit(model: Arrays) -> Commit:
    return Commit(rows=(Row(round=1),), state={"model": model, "lists": [1, [2]]}, best=model)


def test_arrays_are_written_once_and_stand_under_their_fields(blobs: Blobs) -> None:
    model = Arrays({"w": np.ones(5)})
    content = Content.of(commit(model), "commit")
    assert content.keep(blobs, sync=True) == [model.digest()]
    assert content.digests("best") == content.digests("state") == [model.digest()]
    assert content.digests("opening") == []
    assert blobs.fetch(model.digest(), advice="") == model


def test_a_write_behind_numpys_back_is_noticed(blobs: Blobs) -> None:
    model = Arrays({"w": np.ones(5)})
    content = Content.of(commit(model), "commit")
    ctypes.memset(model["w"].ctypes.data, 7, 1)  # as a tensor of torch.from_numpy would
    with pytest.raises(RunError, match="while the commit was being written, somebody wrote into the arrays"):
        content.keep(blobs, sync=True)

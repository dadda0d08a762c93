from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from umbel.errors import StoreError
from umbel.simulation.region import PAGE, Region


def test_two_processes_see_the_same_bytes_and_no_name() -> None:
    before = set(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else set()
    region = Region(100)
    region.array(0, 3, np.int64)[:] = 1, 2, 3
    program = (
        "import numpy as np; from umbel.simulation.region import Region\n"
        f"region = Region(100, {region.handle!r}); a = region.array(0, 3, np.int64); print(a.tolist()); a[0] = 9"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        pass_fds=[h for h in [region.handle] if isinstance(h, int)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[1, 2, 3]"
    assert region.array(0, 3, np.int64).tolist() == [9, 2, 3]
    assert not [n for n in set(os.listdir("/dev/shm")) - before if "umbel" in n] if before else True
    region.close()


def test_it_grows_and_views_from_before_stay_good() -> None:
    region = Region(10)
    assert region.size == PAGE
    before = region.array(0, 8, np.uint8)
    before[:] = 5
    region.resize(10 * PAGE + 1)
    assert region.size >= 11 * PAGE
    after = region.array(0, 8, np.uint8)
    after[0] = 6
    assert before.tolist() == [6, 5, 5, 5, 5, 5, 5, 5]
    region.close()
    assert before[0] == after[0] == 6, "a view outlives the region"


def test_a_piece_that_is_lent_is_missed_until_the_last_view_of_it_is_gone() -> None:
    region = Region(PAGE)
    piece, loan = region.lend(64, 128, writable=False)
    assert not piece.flags.writeable
    assert piece.ctypes.data % 64 == 0
    view = piece[5:9].view(np.int16)[::2]
    del piece
    gc.collect()
    assert loan() is not None
    del view
    assert loan() is None
    region.close()


def test_who_may_only_read_dies_of_writing() -> None:
    program = (
        "import ctypes, numpy as np; from umbel.simulation.region import Region\n"
        "mine = Region(100); its = Region(100, mine.handle, writable=False)\n"
        "assert its.array(0, 1, np.int64)[0] == 0\n"
        "piece, _ = its.lend(0, 8, writable=False)\n"
        "np.asarray((ctypes.c_ubyte * 8).from_address(piece.ctypes.data))[:] = 1"
    )
    status = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode
    assert status == 0xC0000005 if sys.platform == "win32" else status < 0


def test_memory_that_cannot_be_had_is_an_error_that_says_so() -> None:
    region = Region(PAGE)
    with pytest.raises(StoreError, match=r"bytes of shared memory cannot be had: .*\n.*fewer workers"):
        region.resize(1 << 60)
    region.close()

"""How much memory processes take, asked of real ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from umbel.node.memory import group_memory

MB = 1 << 20
FAMILY = """
import os, sys
data = bytearray(os.urandom(1 << 20) * 100)
for _ in range(4):
    if not os.fork():
        sys.stdin.read()
        os._exit(0)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def family() -> Iterator[int]:
    """The group of a process with 100 MB, and of four forks of it."""
    command = [sys.executable, "-c", FAMILY]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.stdin.close()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is watched on Linux")
def test_what_forks_have_in_common_counts_once(family: int) -> None:
    """As with the workers of a data loader."""
    assert 100 * MB < group_memory(family) < 200 * MB


@pytest.mark.skipif(sys.platform != "linux", reason="memory is watched on Linux")
def test_what_is_below_the_limit_need_not_be_known_exactly(family: int) -> None:
    assert 100 * MB < group_memory(family, most=10**12) < 600 * MB
    assert group_memory(family, most=150 * MB) < 200 * MB


def test_of_nobody_nothing_is_known() -> None:
    assert group_memory(2**31 - 1) == 0

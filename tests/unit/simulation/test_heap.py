from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from umbel.simulation.member import surroundings

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, whose heap this is")

_PROGRAM = """\
from umbel.client.memory import private
from umbel.simulation.heap import Heap

def fragment(count):
    large, small = [], []
    for _ in range(count):
        large.append(bytearray(1 << 20))
        small.append(bytearray(600))
    return small

heap = Heap()
for _ in range(8):
    heap.settle()
before = private()
held = fragment({more})
grown = private()
heap.settle()
settled = private()
for _ in range(3):
    heap.settle()
print(grown - before, settled - before, private() - settled)
"""


def _run(more: int) -> list[int]:
    program = [sys.executable, "-c", _PROGRAM.replace("{more}", str(more))]
    done = subprocess.run(program, env={**os.environ, **surroundings(1)}, check=True, capture_output=True, text=True)
    return [int(word) >> 20 for word in done.stdout.split()]


def test_what_was_freed_and_lies_about_is_given_back() -> None:
    grown, settled, later = _run(60)
    assert grown >= 55
    assert settled <= 5
    assert later <= 0

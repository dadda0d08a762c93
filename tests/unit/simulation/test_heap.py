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
held = fragment(60)
grown = private()
heap.settle()
print(grown - before, private() - before)
"""


def test_what_was_freed_and_lies_about_is_given_back() -> None:
    program = [sys.executable, "-c", _PROGRAM]
    done = subprocess.run(program, env={**os.environ, **surroundings(1)}, check=True, capture_output=True, text=True)
    grown, settled = (int(word) >> 20 for word in done.stdout.split())
    assert grown >= 55
    assert settled <= 5

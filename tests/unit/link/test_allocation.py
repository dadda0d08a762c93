from __future__ import annotations

import subprocess
import sys

import pytest

# Each message is larger than what is kept by default, so that each is memory anew.
PROGRAM = """
import resource
from umbel.link.allocation import hold_message_memory
if {hold}:
    hold_message_memory()
size = 1 << 20
del (warm := [bytes(bytearray(size)) for _ in range(8)])[:]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    several = [bytes(bytearray(size)) for _ in range(4)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, hold: bool) -> int:
    program = PROGRAM.format(hold=hold)
    return int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a matter of the C library of most Linux systems")
def test_memory_of_messages_is_used_again() -> None:
    assert 4 * faults(hold=True) < faults(hold=False)

"""Two processes and one directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from umbel.errors import InUse
from umbel.store.files import FileStore

HOLD = """
import sys
from umbel.store.files import FileStore
store = FileStore(sys.argv[1])
print("holds it", flush=True)
sys.stdin.read()
"""

FORK = """
import os, sys
from umbel.store.files import FileStore
store = FileStore(sys.argv[1])
if os.fork() == 0:  # as a data loader does
    print("forked", flush=True)
    sys.stdin.read()
    os._exit(0)
sys.stdin.read()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_a_directory_is_held_by_one_process_until_it_ends(end: signal.Signals | None, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "holds it\n"
        with pytest.raises(InUse, match="in use by another run") as refused:
            FileStore(tmp_path)
        assert "wait until that run ends" in refused.value.advice
        if end is not None:
            other.send_signal(end)
        else:
            other.stdin.close()
        other.wait()
    FileStore(tmp_path).close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork: this system has none")
def test_a_child_that_survives_its_killed_parent_does_not_hold_the_directory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORK, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "forked\n"
        other.kill()
        other.wait()
        FileStore(tmp_path).close()
        other.stdin.close()  # ends the child

from __future__ import annotations

import subprocess
import sys

import pytest

from umbel.apps.ending import how_ended


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit(3)", "the app's process ended by itself, with exit status 3, before it had answered"),
        ("import os; os.kill(os.getpid(), 15)", "the app's process was ended by SIGTERM"),
        (
            "import os; os.kill(os.getpid(), 9)",
            "the app's process was ended by SIGKILL; perhaps the system had no memory left",
        ),
        ("import os; os.kill(os.getpid(), 40)", "the app's process was ended by signal 40"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="signals of Linux")
def test_it_says_what_ended_a_process(code: str, words: str) -> None:
    status = subprocess.run([sys.executable, "-c", code], check=False).returncode
    assert how_ended(status, "the app's process", "it had answered") == words

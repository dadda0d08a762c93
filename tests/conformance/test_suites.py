"""The suites themselves: users have them without the tools that we test with."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import umbel.testing

PROGRAM = """
import sys
for absent in ("pytest", "hypothesis", "torch", "sklearn", "pandas", "matplotlib"):
    sys.modules[absent] = None
import umbel.testing
umbel.testing.check_aggregator(umbel.aggregate.mean())
umbel.testing.check_strategy(umbel.fed_avg())
"""


def test_they_need_nothing_but_umbel() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", umbel.testing.__all__)
def test_each_says_what_it_checks(name: str) -> None:
    doc = inspect.getdoc(getattr(umbel.testing, name)) or ""
    assert doc.startswith("Check a")
    assert "Raises:\n    AssertionError: " in doc

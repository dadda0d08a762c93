"""A skip for want of a part that UMBEL_REQUIRE names is a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
SAMPLE = """
import pytest

def test_imports():
    pytest.importorskip("no_such_part")

def test_says_what_it_needs():
    pytest.skip("needs no_such_disk: this one is too large")

def test_skips_for_another_reason():
    pytest.skip("only on Windows")
"""


def outcome(tmp_path: Path, sample: str, require: str) -> str:
    """Run a test file with the real conftest; return the summary line."""
    (tmp_path / "conftest.py").write_bytes(CONFTEST.read_bytes())
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_sample.py").write_text(sample)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist"],
        cwd=tmp_path,
        env={**os.environ, "UMBEL_REQUIRE": require},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.splitlines()[-1].partition(" in ")[0]


@pytest.mark.parametrize(
    ("require", "expected"),
    [
        ("", "3 skipped"),
        ("no_such", "3 skipped"),
        ("numpy, no_such_part", "1 failed, 2 skipped"),
        ("no_such_part no_such_disk", "2 failed, 1 skipped"),
    ],
)
def test_a_skip_for_want_of_a_required_part_fails(tmp_path: Path, require: str, expected: str) -> None:
    assert outcome(tmp_path, SAMPLE, require) == expected


@pytest.mark.parametrize(("require", "expected"), [("", "1 skipped"), ("no_such_part", "1 error")])
def test_so_does_a_whole_file(tmp_path: Path, require: str, expected: str) -> None:
    assert outcome(tmp_path, 'import pytest\npytest.importorskip("no_such_part")\n', require) == expected

"""What all tests share: Hypothesis profiles, and the rule that a needed part may not be missing unnoticed.

A test that can do without a part skips with a reason that names it: `pytest.importorskip("torch")`, or
`pytest.skip("needs tmpfs: ...")`. UMBEL_REQUIRE=torch,tmpfs (the Makefile sets it to what it installs)
turns such a skip into a failure, so that a green run has run them.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Generator
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

from umbel.simulation import auto

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

REQUIRED = [part for part in re.split(r"[,\s]+", os.environ.get("UMBEL_REQUIRE", "")) if part]

auto.patience = math.inf  # a slow machine must not decide which engine a test is about; tests of "auto" set it

os.environ.setdefault("MPLBACKEND", "Agg")  # figures are drawn, never shown

# No deadline: nothing is timed. Examples are drawn anew wherever people work; in CI they are the same in each run, so
# that a change is judged by what it changed. A failure prints what repeats it.
settings.register_profile("dev", settings.get_profile("default"), deadline=None)
settings.register_profile(
    "ci",
    settings.get_profile("dev"),
    print_blob=True,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("thorough", settings.get_profile("dev"), print_blob=True, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def refuse_skip(report: Report, required: list[str]) -> Report:
    """Turn a skip for want of a required part into a failure."""
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = str(report.longrepr[2])
        for part in required:
            if re.search(rf"(could not import '|needs ){re.escape(part)}\b", reason):
                report.outcome = "failed"
                report.longrepr = f"{part} is required here (UMBEL_REQUIRE), but this was not run. {reason}"
                break
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return refuse_skip((yield), REQUIRED)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return refuse_skip((yield), REQUIRED)

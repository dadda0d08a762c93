"""docs/guide/errors.md has every error with its code, and every event of the log."""

from __future__ import annotations

import re

import pytest

from tests.docs.documents import ROOT
from umbel import errors

PAGE = (ROOT / "docs" / "guide" / "errors.md").read_text(encoding="utf-8")
ERRORS = [e for e in map(vars(errors).get, errors.__all__) if isinstance(e, type) and issubclass(e, errors.UmbelError)]
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
EVENTS = sorted(set(re.findall(r'logger\.\w+\(\s*f?"([a-z-]+):', SOURCES)))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_has_its_row(error: type[errors.UmbelError]) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{error.__name__}` |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == f"`{error.code}`"
    assert cells[2] == ("" if error is errors.UmbelError else "yes" if error.retryable else "no")
    assert all(len(cell.split()) >= 3 for cell in cells[3:])


def test_codes_are_stable_names() -> None:
    assert len({error.code for error in ERRORS}) == len(ERRORS)


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_of_the_log_is_there(event: str) -> None:
    assert f"`{event}`" in PAGE

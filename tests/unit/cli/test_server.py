"""`umbel server`: what it takes from the environment."""

from __future__ import annotations

import os

import pytest

from umbel.cli.server import _database

NAMED, OTHER = "postgresql://me:secret@db/umbel", "sqlite:////srv/umbel.sqlite"


@pytest.mark.parametrize(("given", "found"), [("", NAMED), (OTHER, OTHER)])
def test_apps_do_not_see_the_databases_address(monkeypatch: pytest.MonkeyPatch, given: str, found: str) -> None:
    monkeypatch.setenv("UMBEL_DATABASE", NAMED)
    assert _database(given) == found
    assert "UMBEL_DATABASE" not in os.environ

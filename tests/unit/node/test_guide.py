"""The TOML examples of docs/guide/node.md say what the node takes, with every key and its default."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from umbel.node.config import Limits, NodeConfig, Policy, config_of, read_site

PAGE = (Path(__file__).parents[3] / "docs" / "guide" / "node.md").read_text(encoding="utf-8")
SITE, WHOLE = re.findall(r"^```toml\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_the_examples_are_taken(tmp_path: Path) -> None:
    config = config_of(tomllib.loads(WHOLE))
    assert config.name == "berlin"
    assert list(config.data) == ["heart", "lung"]
    assert config.limits.max_memory == 4_000_000_000
    (tmp_path / "site.toml").write_text(SITE)
    assert read_site(tmp_path / "site.toml").settings["path"] == "/data/heart.csv"


@pytest.mark.parametrize(("kind", "table"), [(NodeConfig, None), (Policy, "policy"), (Limits, "limits")])
def test_every_key_is_there(kind: type[NodeConfig | Policy | Limits], table: str | None) -> None:
    said = tomllib.loads(WHOLE)
    there = said if table is None else said[table]
    assert {f.name for f in fields(kind)} - there.keys() == set()


def test_the_defaults_are_as_the_page_says() -> None:
    rows = dict(re.findall(r"^(\w+) = .*?# .*: ([^:\n]+)$", WHOLE, flags=re.MULTILINE))
    usual = Limits()
    as_config = config_of({"limits": {name: _value(rows[name]) for name in ("max_seconds", "max_memory", "cache")}})
    assert as_config.limits == Limits()
    as_config = config_of({"limits": {name: _value(rows[name]) for name in ("journal", "states", "warm", "idle")}})
    assert as_config.limits == usual
    sizes = {name: _value(rows[name]) for name in ("max_model_bytes", "max_update_bytes")}
    assert config_of({"policy": sizes}).policy == Policy()


def _value(text: str) -> object:
    return int(text) if text.isdigit() else text

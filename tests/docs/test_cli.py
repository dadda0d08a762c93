"""docs/guide/cli.md has every command and every flag."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, get_args, get_type_hints

import pytest
from cyclopts import App, Parameter

from tests.docs.documents import ROOT
from umbel.cli import app

PAGE = (ROOT / "docs" / "guide" / "cli.md").read_text(encoding="utf-8")


def commands(here: App, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every command, with what it calls."""
    if here.default_command is not None:
        yield " ".join(path), here.default_command
    for name in here:
        if not name.startswith("-"):
            yield from commands(here[name], (*path, name))


COMMANDS = dict(commands(app))


def flags(function: Callable[..., Any]) -> Iterator[str]:
    """Every flag of a command."""
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            given = next((a.name for a in get_args(hints[name]) if isinstance(a, Parameter) and a.name), None)
            yield from [given] if isinstance(given, str) else given or ["--" + name.replace("_", "-")]


def test_the_commands_are_found() -> None:
    assert {"run", "server", "server backup", "node", "node log", "nodes ls", "ticket create"} <= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there(name: str) -> None:
    assert re.search(rf"`umbel {re.escape(name)}[`\s]", PAGE), f"umbel {name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_there(name: str) -> None:
    missing = [flag for flag in flags(COMMANDS[name]) if not re.search(rf"`{re.escape(flag)}[`\s]", PAGE)]
    assert missing == []


def test_every_flag_that_is_mentioned_exists() -> None:
    known = {flag for function in COMMANDS.values() for flag in flags(function)} | {"--help", "--version"}
    mentioned = set(re.findall(r"`[^`\n]*?(--[a-z][a-z-]*)", PAGE))
    assert mentioned <= known

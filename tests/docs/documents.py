"""Runs the Python blocks of a Markdown file, top to bottom, as one program.

The blocks of a file share one namespace, as if they were one script. A block that cannot run is
left out with a reason, in a comment of the page: <!-- skip: next "needs a second machine" -->.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from unittest import SkipTest

import pytest
from sybil import Document
from sybil.evaluators.skip import Skipper
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md")
    for page in ROOT.glob(pattern)
)
LANGUAGES = frozenset({"python", "bash", "console", "json", "mermaid", "text", "toml"})
OPTIONAL = frozenset({"jax", "matplotlib", "pandas", "scipy", "sklearn", "tensorboard", "torch"})


def parse(page: Path) -> Document:
    """Find the Python blocks of a page; a block that is skipped must say why."""
    document = Document.parse(str(page), PythonCodeBlockParser(), SkipParser())
    for example in document:
        if isinstance(example.region.evaluator, Skipper):
            action, reason = example.parsed
            if action != "end" and not reason:
                raise ValueError(f'{page.name}, line {example.line}: say why: <!-- skip: {action} "reason" -->')
    return document


def execute(page: Path, patch: pytest.MonkeyPatch) -> int:
    """Run a page's blocks in one fresh `__main__`; return how many ran."""
    document, ran = parse(page), 0
    main = ModuleType("__main__")
    main.__file__ = str(page)
    document.namespace = main.__dict__
    patch.setitem(sys.modules, "__main__", main)
    for example in document:
        try:
            example.evaluate()
        except SkipTest:
            continue
        except ModuleNotFoundError as missing:
            if missing.name in OPTIONAL:
                pytest.skip(f"needs {missing.name}: {page.name}, line {example.line}")
            raise
        ran += not isinstance(example.region.evaluator, Skipper)
    return ran


def fences(text: str) -> list[tuple[str, str]]:
    """Return (language, source) of every fenced block."""
    return re.findall(r"^[ \t]*```([^\n`]*)\n(.*?)^[ \t]*```[ \t]*$", text, flags=re.MULTILINE | re.DOTALL)


def make_targets(text: str) -> set[str]:
    """Return the targets of every `make TARGET` in a page's shell blocks and inline code."""
    shell = [source for language, source in fences(text) if language in {"bash", "console"}]
    inline = re.findall(r"`([^`\n]+)`", text)
    calls = re.findall(r"^\s*(?:\$ )?make ([^\n#]*)", "\n".join(shell + inline), flags=re.MULTILINE)
    return {word for call in calls for word in call.split() if re.fullmatch(r"[a-z][a-z-]*", word)}

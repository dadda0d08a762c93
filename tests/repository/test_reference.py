"""tools/reference.py, on a package that it must describe or reject."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tools.reference import Name, complaints, loaded, names, recorded, render

INIT = '''
"""A package made for this test."""
from sample_package import deep
from sample_package.inner import Thing, UNIT
__version__ = "1"
__all__ = ["Thing", "UNIT", "__version__", "deep", "shallow", "undocumented"]

def shallow():
    """Shallow."""

def undocumented(): ...
'''
INNER = '''
"""Not public: the package does not name it."""
from dataclasses import dataclass

__all__ = ["Hidden", "Thing", "UNIT"]

UNIT = 3
"""What every weight is counted in | by."""

@dataclass
class Thing:
    x: int

class Hidden: ...
'''
TESTING = '''
"""Public, though not in `__all__` of the package."""
__all__ = ["check"]

def check():
    """Check one part thoroughly."""
'''
DEEP = '''
"""A public module of the package."""
__all__ = ["walk"]

def walk():
    """Walk through all of it.

    More.
    """
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    folder = tmp_path / "sample_package"
    folder.mkdir()
    for name, text in {"__init__": INIT, "inner": INNER, "deep": DEEP, "testing": TESTING}.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("sample_package")
    for name in [name for name in sys.modules if name.partition(".")[0] == "sample_package"]:
        del sys.modules[name]


def test_it_finds_public_names_and_their_first_lines(package: ModuleType) -> None:
    found = {f"{entry.module}.{entry.name}": entry.summary for entry in names(package)}
    assert set(found) == {
        *(f"sample_package.{name}" for name in ("Thing", "UNIT", "deep", "shallow", "undocumented")),
        "sample_package.deep.walk",
        "sample_package.testing.check",
    }
    assert found["sample_package.deep.walk"] == "Walk through all of it."
    assert found["sample_package.UNIT"] == "What every weight is counted in | by."


def test_it_rejects_what_is_not_documented(package: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "reference.md"
    page.write_text(render(names(package)))
    assert {complaint.partition(":")[0] for complaint in complaints(names(package), page)} == {
        "sample_package.Thing",  # has only the docstring that `dataclass` writes
        "sample_package.shallow",
        "sample_package.undocumented",
    }


def test_it_rejects_a_missing_or_stale_page(package: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "reference.md"
    found = [entry for entry in names(package) if entry.documented]
    stale = ["reference.md: is not what the docstrings say; run `make docs`"]
    assert complaints(found, page) == stale
    page.write_text(render(found))
    assert complaints(found, page) == []
    assert complaints(found[1:], page) == stale


def test_a_bar_does_not_break_the_table(package: ModuleType) -> None:
    assert "| `UNIT` | What every weight is counted in \\| by. |" in render(names(package))


def test_rows_of_what_is_not_installed_stay(tmp_path: Path) -> None:
    found = [
        Name(module="p.one", name="a", summary="One | the other."),
        Name(module="p.two", name="b", summary="Something else entirely."),
    ]
    page = tmp_path / "reference.md"
    page.write_text(render(found))
    assert recorded(page, "p.one") == found[:1]
    assert recorded(page, "p.two") == found[1:]
    assert recorded(page, "p.three") == []
    assert recorded(tmp_path / "none.md", "p.one") == []


def test_a_module_that_is_broken_is_not_taken_for_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adapters").mkdir()
    for name, text in {
        "__init__": "",
        "no_such_frame": "import no_such_frame",
        "broken": "import no_such_part",
    }.items():
        (tmp_path / "adapters" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert loaded("adapters.no_such_frame") is None
    with pytest.raises(ModuleNotFoundError, match="no_such_part"):
        loaded("adapters.broken")

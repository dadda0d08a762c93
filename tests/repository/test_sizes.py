"""tools/sizes.py, on trees that it must pass or reject."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.sizes import FILE_LINES, FUNCTION_LINES, complaints


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree without complaints."""
    for folder in ("src", "tools"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tools" / "sizes.toml").write_text("[allowed]\n")
    return tmp_path


def function(lines: int, *, indent: str = "") -> str:
    return f"{indent}def f():\n" + f"{indent}    x = 1\n" * (lines - 1)


def test_what_is_at_its_cap_passes(tree: Path) -> None:
    blank = "\n" * (FILE_LINES - FUNCTION_LINES)
    (tree / "src" / "a.py").write_text(function(FUNCTION_LINES) + blank)
    assert complaints(tree) == []


def test_a_long_file_is_rejected(tree: Path) -> None:
    (tree / "src" / "a.py").write_text("x = 1\n" * (FILE_LINES + 1))
    (found,) = complaints(tree)
    assert found.startswith("src/a.py: 501 lines, the cap is 500")


@pytest.mark.parametrize("prefix", ["", "async "])
def test_a_long_function_is_rejected(tree: Path, prefix: str) -> None:
    (tree / "tools" / "a.py").write_text(prefix + function(FUNCTION_LINES + 1))
    (found,) = complaints(tree)
    assert found.startswith("tools/a.py::f: 61 lines, the cap is 60")


def test_a_long_method_in_a_package_is_rejected(tree: Path) -> None:
    (tree / "src" / "p").mkdir()
    (tree / "src" / "p" / "a.py").write_text("class C:\n" + function(FUNCTION_LINES + 1, indent="    "))
    (found,) = complaints(tree)
    assert found.startswith("src/p/a.py::C.f:")


def test_an_exception_with_a_reason_passes(tree: Path) -> None:
    (tree / "src" / "a.py").write_text("x = 1\n" * (FILE_LINES + 1))
    (tree / "tools" / "sizes.toml").write_text('[allowed]\n"src/a.py" = "one table, read as one"\n')
    assert complaints(tree) == []


def test_an_exception_without_a_reason_is_rejected(tree: Path) -> None:
    (tree / "src" / "a.py").write_text("x = 1\n" * (FILE_LINES + 1))
    (tree / "tools" / "sizes.toml").write_text('[allowed]\n"src/a.py" = " "\n')
    assert complaints(tree) == ["src/a.py: its exception gives no reason"]


@pytest.mark.parametrize("key", ["src/a.py", "src/a.py::f", "src/gone.py"])
def test_an_exception_that_is_needed_no_longer_is_rejected(tree: Path, key: str) -> None:
    (tree / "src" / "a.py").write_text(function(FUNCTION_LINES))
    (tree / "tools" / "sizes.toml").write_text(f'[allowed]\n"{key}" = "was long once"\n')
    assert complaints(tree) == [f"{key}: is under its cap; take it out of tools/sizes.toml"]

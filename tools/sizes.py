"""Holds files to 500 lines and functions to 60; exceptions stand in sizes.toml, each with its reason.

python tools/sizes.py [ROOT]    checks ROOT/src and ROOT/tools against ROOT/tools/sizes.toml
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

FILE_LINES = 500
FUNCTION_LINES = 60


def too_large(path: Path, name: str) -> Iterator[tuple[str, int, int]]:
    """Yield (key, lines, cap) for the file and for each of its functions that is over its cap.

    The key of a file is its name, that of a function is `name::Class.function`. A function is
    counted from its `def` to its last line, docstring included.
    """
    text = path.read_text(encoding="utf-8")
    if (lines := len(text.splitlines())) > FILE_LINES:
        yield name, lines, FILE_LINES
    for qualified, function in functions(ast.parse(text)):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > FUNCTION_LINES:
            yield f"{name}::{qualified}", lines, FUNCTION_LINES


def functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield every function below a node with its qualified name."""
    for child in ast.iter_child_nodes(node):
        here = prefix
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            here = f"{prefix}{child.name}."
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield here[:-1], child
        yield from functions(child, here)


def complaints(root: Path) -> list[str]:
    """Say what is over its cap without a reason, and which exceptions are needed no longer."""
    listed = root / "tools" / "sizes.toml"
    allowed: dict[str, str] = tomllib.loads(listed.read_text(encoding="utf-8")).get("allowed", {})
    found = [f"{key}: its exception gives no reason" for key, reason in allowed.items() if not reason.strip()]
    seen = set()
    for path in sorted(p for folder in ("src", "tools") for p in (root / folder).rglob("*.py")):
        for key, lines, cap in too_large(path, path.relative_to(root).as_posix()):
            seen.add(key)
            if key not in allowed:
                found.append(f"{key}: {lines} lines, the cap is {cap}; divide it, or give a reason in tools/sizes.toml")
    return found + [f"{key}: is under its cap; take it out of tools/sizes.toml" for key in allowed if key not in seen]


def main(root: Path) -> int:
    found = complaints(root)
    for complaint in found:
        print(complaint)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))

"""Two rules of the house: a class is abstract or final, and a file is named for what it defines.

python tools/house.py [ROOT]    checks every file of ROOT/src
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

NAMELESS = frozenset({"common", "helpers", "misc", "tools", "util", "utils"})  # each is a decision not taken


def names(nodes: list[ast.expr]) -> set[str]:
    """Return the last part of each decorator or base: `final` for `@typing.final`, `Base` for `Base[T]`."""
    parts = [node.value if isinstance(node, ast.Subscript) else node for node in nodes]
    return {ast.unparse(part).partition("(")[0].rpartition(".")[2] for part in parts}


def classes(root: Path) -> Iterator[tuple[str, ast.ClassDef]]:
    """Yield every class below src, with its place."""
    for path in sorted((root / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                yield f"{path.relative_to(root).as_posix()}:{node.lineno}: {node.name}", node


def is_final(node: ast.ClassDef) -> bool:
    """Whether nothing can derive from the class; the language sees to it where an enumeration has members."""
    return "final" in names(node.decorator_list) or bool(names(node.bases) & {"Enum", "IntEnum", "StrEnum", "Flag"})


def is_abstract(node: ast.ClassDef) -> bool:
    """Whether the class says so itself: by its base, or by an abstract method."""
    methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
    return bool(names(node.bases) & {"ABC", "Protocol"}) or any(
        "abstractmethod" in names(method.decorator_list) for method in methods
    )


def complaints(root: Path) -> list[str]:
    """Say which classes can be derived from by accident, and which files have a name that says nothing."""
    found = [
        f"{path.relative_to(root).as_posix()}: name it for the noun it defines"
        for path in sorted((root / "src").rglob("*"))
        if path.stem in NAMELESS
    ]
    everything = list(classes(root))
    # The inner classes of a tree of errors are neither: they are caught, and their leaves are raised.
    errors = {"Exception"}
    while more := {node.name for _, node in everything if names(node.bases) & errors} - errors:
        errors |= more
    inner = {base for _, node in everything for base in names(node.bases)} & errors
    for place, node in everything:
        if not is_final(node) and not is_abstract(node) and node.name not in inner:
            found.append(f"{place}: is neither abstract nor @final")
    return found


def main(root: Path) -> int:
    found = complaints(root)
    for complaint in found:
        print(complaint)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))

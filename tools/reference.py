"""Writes docs/reference.md: every public name of Umbel, with the first line of its docstring.

Public is what stands in `umbel.__all__`, and in `__all__` of each module named there or in APART.

python tools/reference.py            writes the page
The rows of a module whose framework is not installed stay as the page has them.

python tools/reference.py --check    says which names lack a docstring of substance, and whether the page is stale
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference.md"
APART = ("jax", "sklearn", "testing", "torch")  # not in `__all__`: `from umbel import *` must not load a framework
HEAD = """# Reference

Every public name, with the first line of its documentation; `help(umbel.NAME)` shows the rest.
This page is written by `make docs`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """One public name of one module, and what its documentation says first."""

    module: str
    name: str
    summary: str

    @property
    def documented(self) -> bool:
        """Whether the summary says something: three words at least, not what a dataclass makes by itself."""
        words = self.summary.split()
        return len(words) >= 3 and not self.summary.startswith(f"{self.name}(")


def public_modules(package: ModuleType) -> list[ModuleType]:
    """Return the package, the modules that it names as public, and those of APART that it has."""
    named = [name for name in package.__all__ if isinstance(getattr(package, name), ModuleType)]
    folder = Path(str(package.__file__)).parent
    apart = [name for name in APART if (folder / name).is_dir() or (folder / f"{name}.py").is_file()]
    wanted = [f"{package.__name__}.{name}" for name in sorted({*named, *apart})]
    return [package, *(module for name in wanted if (module := loaded(name)) is not None)]


def loaded(name: str) -> ModuleType | None:
    """Return the module, or nothing where the framework that it adapts is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name != name.rpartition(".")[2]:
            raise
        return None


def recorded(page: Path, module: str) -> list[Name]:
    """Return what the page has of a module that cannot be loaded here."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    section = text.partition(f"\n## {module}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ", 1) for line in section.splitlines() if line.startswith("| `")]
    return [Name(module=module, name=name.strip("`"), summary=said.replace("\\|", "|")) for name, said in rows]


def assigned(node: ast.stmt) -> list[str]:
    """Return the plain names that a statement assigns."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def names(package: ModuleType) -> list[Name]:
    """Return every public name of the package, module by module; names of the language's own (`__x__`) apart."""
    found = [
        Name(module=module.__name__, name=name, summary=summary(getattr(module, name), name, package.__name__))
        for module in public_modules(package)
        for name in sorted(getattr(module, "__all__", ()))
        if not name.startswith("__")
    ]
    there = {entry.module for entry in found}
    absent = [name for part in APART if (name := f"{package.__name__}.{part}") not in there]
    return sorted([*found, *(row for name in absent for row in recorded(PAGE, name))], key=lambda entry: entry.module)


def summary(value: object, name: str, package: str) -> str:
    """Return the first line of a value's own documentation, or nothing."""
    if isinstance(value, ModuleType) or inspect.isclass(value) or inspect.isroutine(value):
        doc = value.__doc__
    else:
        doc = constant_doc(value, name, package)
    return next(iter(inspect.cleandoc(doc or "").splitlines()), "")


def constant_doc(value: object, name: str, package: str) -> str | None:
    """Find the string below `NAME = value` in the module that defines it."""
    for module in [m for key, m in sys.modules.items() if f"{key}.".startswith(f"{package}.")]:
        if vars(module).get(name) is value and module.__file__:
            body = ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body
            for node, after in pairwise(body):
                if name in assigned(node) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                    return str(after.value.value)
    return None


def render(found: list[Name]) -> str:
    """Return the page."""
    lines = [HEAD]
    for module in dict.fromkeys(entry.module for entry in found):
        lines += [f"## {module}", "", "| Name | What it is |", "| --- | --- |"]
        for entry in found:
            if entry.module == module:
                lines.append(f"| `{entry.name}` | {entry.summary.replace('|', chr(92) + '|')} |")
        lines.append("")
    return "\n".join(lines)


def complaints(found: list[Name], page: Path) -> list[str]:
    """Say which names are not documented, and whether the page differs from what it would be."""
    bad = [f"{entry.module}.{entry.name}: has no docstring of substance" for entry in found if not entry.documented]
    if not page.exists() or page.read_text(encoding="utf-8") != render(found):
        bad.append(f"{page.name}: is not what the docstrings say; run `make docs`")
    return bad


def main(*, check: bool) -> int:
    found = names(importlib.import_module("umbel"))
    if not check:
        PAGE.write_text(render(found), encoding="utf-8")
        return 0
    bad = complaints(found, PAGE)
    for complaint in bad:
        print(complaint)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))

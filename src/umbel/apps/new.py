"""`umbel new`: a project that runs at once, in simulation and deployed."""

from __future__ import annotations

import keyword
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Final, final

from umbel.apps.settings import nearest
from umbel.errors import UsageError
from umbel.store.durable import readable_errors

_SUFFIX = ".in"
_PACKAGE = "package"  # in the templates; called by the app's name in a project
_FEATURES = "5"
_TAKEN = frozenset({"numpy", "sklearn", "tests", "torch", "umbel"})
_OPERATIONS = """
## To run it in earnest

`systemd/` holds units for a server and for a node, and a `node.toml`; `containers/` a Dockerfile and a Compose file.
Each begins with what to do with it.
"""


@final
@dataclass(frozen=True, slots=True)
class Template:
    """One kind of project.

    Attributes:
        about: what it does, in one line.
        dependencies: what its app imports.
    """

    about: str
    dependencies: tuple[str, ...]


TEMPLATES: Final[Mapping[str, Template]] = MappingProxyType(
    {
        "numpy": Template("A federated logistic regression, in plain NumPy.", ("numpy>=1.26", "umbel")),
        "pytorch": Template(
            "A small network, trained by a federation, in PyTorch.", ("numpy>=1.26", "torch>=2.2", "umbel")
        ),
        "sklearn": Template(
            "A linear classifier of scikit-learn, trained by a federation.",
            ("numpy>=1.26", "scikit-learn>=1.4", "umbel"),
        ),
    }
)
"""The kinds of projects there are."""


def new_project(path: Path, template: str = "numpy", *, ops: bool = False) -> list[Path]:
    """Write a new project.

    Args:
        path: its directory, which is made; the last part is its name, and with "_" for "-" its package's.
        template: "numpy", "pytorch" or "sklearn".
        ops: write systemd units and container files, too.

    Returns:
        The files that were written.

    Raises:
        UsageError: the name cannot be a package's, there is no such template, or the directory holds something.
        StoreError: it cannot be written.
    """
    if template not in TEMPLATES:
        raise UsageError(f"there is no template {template!r}", advice=nearest(template, TEMPLATES))
    path = path.absolute()
    package = _package(path.name)
    words = _words(path.name, package, TEMPLATES[template], ops=ops)
    root = resources.files("umbel") / "templates"
    parts = ["every", template, *(["ops"] if ops else [])]
    files = {place: text for part in parts for place, text in _rendered(root / part, words)}
    with readable_errors(path):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{path} is there already", advice="give another name; nothing is overwritten")
        for place, text in files.items():
            file = path / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="\n")
    return [path / place for place in files]


def _package(project: str) -> str:
    """The package of a project of this name."""
    package = project.replace("-", "_")
    plain = package.isidentifier() and package.isascii() and package == package.lower()
    if not plain or keyword.iskeyword(package) or package.startswith("_"):
        raise UsageError(
            f"a project cannot be called {project!r}",
            advice='give a name of small letters, digits, "-" and "_" that begins with a letter, such as "myfed"',
        )
    if package in _TAKEN or package in sys.stdlib_module_names:
        raise UsageError(
            f"a project called {project!r} would hide the module {package!r}",
            advice='give another name, such as "myfed"',
        )
    return package


def _words(project: str, package: str, template: Template, *, ops: bool) -> Mapping[str, str]:
    """What stands for each ``{{word}}`` of the templates."""
    hardening = resources.files("umbel") / "templates" / "ops" / "systemd" / f"hardening{_SUFFIX}"
    return {
        "project": project,
        "name": package,
        "about": template.about,
        "dependencies": ", ".join(f'"{each}"' for each in template.dependencies),
        "features": _FEATURES,
        "operations": _OPERATIONS if ops else "",
        "prefix": f"/opt/{project}",
        "hardening": hardening.read_text(encoding="utf-8"),
    }


def _rendered(directory: Traversable, words: Mapping[str, str], path: str = "") -> Iterator[tuple[str, str]]:
    """Path and text of each file that a directory of templates makes."""
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _rendered(entry, words, f"{path}{words['name'] if entry.name == _PACKAGE else entry.name}/")
        elif entry.name.endswith(_SUFFIX) and entry.name != f"hardening{_SUFFIX}":
            text = entry.read_text(encoding="utf-8")
            for word, value in words.items():
                text = text.replace("{{" + word + "}}", value)
            name = entry.name.removesuffix(_SUFFIX)
            yield path + _called(name, words["project"]), text.rstrip() + "\n"


def _called(name: str, project: str) -> str:
    if name.endswith(".service"):
        return f"{project}-{name}"
    return ".gitignore" if name == "gitignore" else name


__all__ = ["TEMPLATES", "Template", "new_project"]

"""``umbel new``: write a project that runs at once."""

from __future__ import annotations

from pathlib import Path

from umbel.cli.reach import Json


def new(name: Path, *, template: str = "numpy", ops: bool = False, json: Json = False) -> None:
    """Write a new project: an app, its settings and a test. Nothing is downloaded.

    Args:
        name: of the project, or the path of its directory.
        template: numpy, pytorch or sklearn.
        ops: write systemd units and container files, too.
        json: print one JSON object.
    """
    from shlex import quote

    from umbel.apps.new import new_project
    from umbel.cli.printing import give, line

    files = new_project(name, template, ops=ops)
    if json:
        give({"path": str(name), "files": [str(file) for file in files]})
        return
    for file in files:
        line(f"  {file}")
    run = f"umbel run {quote(str(name))}"
    line(f"To simulate it: {run}")
    line(f"To deploy it, see {name}/README.md: umbel server, umbel node, {run} --on ADDRESS")


__all__ = ["new"]

"""The ``umbel`` command."""

from __future__ import annotations

import sys
from pathlib import Path

from cyclopts import App

from umbel.version import __version__

app = App(name="umbel", help="Federated learning: train models on data that cannot move.", version=__version__)


@app.command
def show(directory: Path, *, json: bool = False) -> None:
    """Show a run: how it stands, and its history.

    Args:
        directory: the run's directory, as given to umbel.run(dir=...).
        json: print one JSON object.
    """
    from umbel.show import show_run

    show_run(directory, as_json=json)


def main() -> None:
    """Run the command line; what goes wrong is said in words, with exit status 1."""
    try:
        app()
    except Exception as error:
        from umbel.errors import UmbelError

        if not isinstance(error, UmbelError):
            raise
        print(f"umbel: {error}", file=sys.stderr)  # noqa: T201  # this is the command's answer
        sys.exit(1)


__all__ = ["app", "main"]

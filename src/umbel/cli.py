"""The ``umbel`` command."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from umbel.version import __version__

app = App(name="umbel", help="Federated learning: train models on data that cannot move.", version=__version__)


@app.command
def show(directory: Path, *, json: bool = False) -> None:
    """Show a run: its recipe, its history, and how it stands.

    Args:
        directory: the run's directory, as given to umbel.run(dir=...).
        json: print one JSON object.
    """
    from umbel.show import show_run

    show_run(directory, as_json=json)


def main() -> None:
    """Run the command line."""
    app()


__all__ = ["app", "main"]

"""How a process with an app's code in it ended, in words."""

from __future__ import annotations

import signal


def how_ended(status: int | None, what: str, too_soon: str) -> str:
    """A sentence without its full stop.

    Args:
        status: as `subprocess` says it: negative, if a signal ended the process.
        what: which process: "the app's process".
        too_soon: before what it should not have ended: "it had answered".
    """
    if status is None or status >= 0:
        return f"{what} ended by itself, with exit status {status}, before {too_soon}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = "; perhaps the system had no memory left" if name == "SIGKILL" else ""
    return f"{what} was ended by {name}{hint}"


__all__ = ["how_ended"]

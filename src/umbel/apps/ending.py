"""How a process with an app's code in it ended, in words."""

from __future__ import annotations

import signal

CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP")  # what the process's own code ends it with


def how_ended(status: int | None, what: str, too_soon: str) -> str:
    """A sentence without its full stop.

    Args:
        status: as `subprocess` says it: negative, if a signal ended the process.
        what: which process: "the app's process".
        too_soon: before what it should not have ended: "it had answered".
    """
    if status is None or status >= 0:
        return f"{what} ended by itself, with exit status {status}, before {too_soon}"
    name = _name(status)
    hint = "; perhaps the system had no memory left" if name == "SIGKILL" else ""
    return f"{what} was ended by {name}{hint}"


def what_to_do(status: int | None) -> str:
    """Advice for whose code it was; `status` is as in `how_ended`."""
    if status is None or status >= 0:
        return "let the code raise an exception, which would be told; os._exit, or what calls it, ends the process"
    if was_killed(status):
        return "look whether the machine has enough memory, and who ends processes there; smaller batches need less"
    return "look at what it printed last, which names the place in the code; a compiled library may be broken there"


def was_killed(status: int | None) -> bool:
    """Did somebody end it, or a system that is short of memory, and not its own code? What it did may work again."""
    return status is not None and status < 0 and _name(status) not in CRASHES


def _name(status: int) -> str:
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


__all__ = ["CRASHES", "how_ended", "was_killed", "what_to_do"]

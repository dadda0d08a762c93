"""Modules of the user's are loaded here, with an app or a question: meanwhile nothing may be run.

A worker that imports a program without a guard would have workers of its own, which import it, and so on without end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from umbel.errors import UsageError

_within = [0]  # of this process, not of a thread: what is imported may start threads


@contextmanager
def loading() -> Iterator[None]:
    """What another process has sent is loaded here."""
    _within[0] += 1
    try:
        yield
    finally:
        _within[0] -= 1


def check_not_loading() -> None:
    """A run may begin.

    Raises:
        UsageError: it would begin in a worker, because a module is imported.
    """
    if _within[0]:
        raise UsageError(
            "a worker process imports a module of what it was sent, and the module itself begins a run",
            advice="put the call of umbel.run under if __name__ == '__main__':, or into a function",
        )


__all__ = ["check_not_loading", "loading"]

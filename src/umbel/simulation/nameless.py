"""Files without a name: nobody else can find them, and they are gone when nobody holds them."""

from __future__ import annotations

import os
import sys
import tempfile


def nameless_file(purpose: str) -> int:
    """The descriptor of a new one, in memory where the system has that.

    Args:
        purpose: shown by tools that list open files.
    """
    if sys.platform == "linux" and hasattr(os, "memfd_create"):
        return os.memfd_create(f"umbel-{purpose}")
    with tempfile.TemporaryFile(
        prefix="umbel-"
    ) as file:  # it has no name once it is open; on Windows, it is gone once it is closed
        return os.dup(file.fileno())


__all__ = ["nameless_file"]

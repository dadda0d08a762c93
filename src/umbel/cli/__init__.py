"""The ``umbel`` command: one file a noun. What is heavy is imported by the command that needs it."""

from __future__ import annotations

from umbel.cli.program import app, main

__all__ = ["app", "main"]

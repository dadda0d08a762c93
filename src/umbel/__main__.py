"""``python -m umbel`` is the command ``umbel``, for whoever has it not on the path."""

from __future__ import annotations

from umbel.cli import main

main()

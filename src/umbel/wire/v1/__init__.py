"""Messages of umbel.v1, made by tools/wire.py."""

from __future__ import annotations

"""Runs on a server somewhere else: ``on=umbel.connect(...)``."""

from __future__ import annotations

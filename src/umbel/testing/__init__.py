"""Suites that an implementation of one of Umbel's seams must pass: run them in your own tests."""

from __future__ import annotations

from umbel.testing.store import check_store

__all__ = ["check_store"]

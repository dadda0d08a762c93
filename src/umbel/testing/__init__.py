"""Suites that an implementation of one of Umbel's seams must pass: run them in your own tests."""

from __future__ import annotations

from umbel.testing.aggregator import check_aggregator
from umbel.testing.link import check_link
from umbel.testing.optimizer import check_optimizer
from umbel.testing.sampler import check_sampler
from umbel.testing.server_store import check_server_store
from umbel.testing.store import check_store
from umbel.testing.strategy import check_strategy
from umbel.testing.transform import check_transform

__all__ = [
    "check_aggregator",
    "check_link",
    "check_optimizer",
    "check_sampler",
    "check_server_store",
    "check_store",
    "check_strategy",
    "check_transform",
]

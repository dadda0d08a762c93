"""What clients' settings may hold when worker processes are sent them."""

from __future__ import annotations

import pickle
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from umbel.errors import UsageError
from umbel.simulation.settings import check_sendable, sendable


def arrived(sites: Any) -> Any:
    return pickle.loads(pickle.dumps(sendable(sites)))  # noqa: S301  # our own


def test_plain_settings_are_sent_as_they_are() -> None:
    sites = {"a": {"path": Path("x"), "n": [1, 2.0, (True, None)], "by": {"k": b"v"}, "x": np.arange(3)}}
    assert sendable(sites) == sites
    assert str(arrived(sites)) == str(sites)


def test_functions_and_classes_without_a_module_go_by_value() -> None:
    @dataclass
    class Local:
        n: int

    got = arrived({"a": {"f": lambda x: x + 1, "v": [Local(3)]}, "b": {"n": 1}})
    assert got["a"]["f"](1) == 2
    assert got["a"]["v"][0].n == 3
    assert got["b"] == {"n": 1}


def test_what_cannot_be_sent_is_named() -> None:
    with pytest.raises(UsageError, match="setting 'lock' of client 'b' cannot be sent to a worker process"):
        check_sendable({"a": {"n": 1}, "b": {"lock": threading.Lock()}})
    with pytest.raises((TypeError, pickle.PicklingError)):
        cloudpickle.dumps(threading.Lock())

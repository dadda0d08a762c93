"""What all tests of apps share: a fresh name for a package, which is forgotten after the test."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

import pytest

_NUMBERS = itertools.count()


@pytest.fixture
def name() -> Iterator[str]:
    """A name of a package that nothing else has imported; ``sys.path`` and ``sys.modules`` are as before afterwards."""
    name, path = f"fed_app_{next(_NUMBERS)}", list(sys.path)
    yield name
    sys.path[:] = path
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        del sys.modules[module]

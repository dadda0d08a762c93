"""What a server has counted since it started, for its metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import final


@final
@dataclass(slots=True)
class Counts:
    """Sums.

    Attributes:
        answers: of nodes, by verdict.
        moved: bytes of blobs, "in" and "out".
    """

    answers: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)


__all__ = ["Counts"]

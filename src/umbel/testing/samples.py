"""Small models and updates for the suites: every dtype and role that an implementation may meet, drawn from a seed."""

from __future__ import annotations

import numpy as np

from umbel.arrays import Arrays
from umbel.update import Update


def model(seed: int = 0) -> Arrays:
    """A model with float64, float32 and float16 entries, scalars, nothing at all, a buffer and a counter."""
    rng = np.random.default_rng(seed)
    return Arrays(
        {
            "weight": rng.normal(size=(5, 7)).astype(np.float32),
            "bias": rng.normal(size=7),
            "half": rng.normal(size=6).astype(np.float16),
            "scale": np.float32(rng.normal()),
            "none": np.zeros((0, 3), np.float32),
            "variance": 1 + rng.random(7).astype(np.float32),
            "steps": np.array(seed),
        },
        roles={"variance": "buffer"},
    )


def updates(sent: Arrays, count: int = 7, seed: int = 1) -> list[Update]:
    """Models as clients return them: near what was sent, with different weights."""
    return [_update(sent, np.random.default_rng((seed, i)), i) for i in range(count)]


def _update(sent: Arrays, rng: np.random.Generator, i: int) -> Update:
    kept = [e for e in sent.spec.entries if e.role in ("trained", "buffer")]
    near = {e.name: (sent[e.name] + 0.1 * rng.normal(size=e.shape)).astype(sent[e.name].dtype) for e in kept}
    return Update(model=near, weight=float(1 + rng.integers(0, 9)), metrics={"loss": float(rng.random()), "n": i})


def values(count: int = 7, seed: int = 2) -> list[Update]:
    """Values as queries return them: counts and numbers."""
    drawn = [np.random.default_rng((seed, i)) for i in range(count)]
    return [
        Update(
            value={"counts": rng.integers(0, 99, 4), "mean": rng.normal(size=3), "least": rng.normal()},
            weight=float(rng.integers(1, 9)),
            metrics={"loss": float(rng.random())},
        )
        for rng in drawn
    ]


__all__ = ["model", "updates", "values"]

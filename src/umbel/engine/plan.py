"""What a run is made of, as far as the loop needs to know."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from umbel.arrays import Arrays
from umbel.engine.checkpoint import Checkpoint
from umbel.errors import Failure
from umbel.transforms import Noise

Central = Callable[[Arrays, int], tuple[Mapping[str, Any], Failure | None]]
"""Evaluates a model where the server is: (model, round) -> (metrics, what went wrong)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run is made of, as far as the loop needs to know.

    Attributes:
        seed: of the run.
        initial: the model at the start; None where there is none.
        rounds: how many in all; None where main decides.
        handlers: what the clients can be asked: "train", "evaluate", and names of queries.
        central: evaluates a model where the server is; None where nothing does.
        checkpoint: what to keep.
        durable: does the store outlive the process?
        race: are spares asked at once, and the first answers count, as over a network?
        noise: a source of cryptographically random bytes.
        reseed: called with (round, n-th call) before main goes on; seeds its generators and sets its threads.
        warn: is told which of the clients' metrics are left out, and why.
    """

    seed: int
    initial: Arrays | None
    rounds: int | None
    handlers: frozenset[str]
    central: Central | None = None
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    durable: bool = False
    race: bool = False
    noise: Noise = os.urandom
    reseed: Callable[[int, int], object] = lambda _round, _call: None
    warn: Callable[[str], object] = lambda _: None


__all__ = ["Central", "Plan"]

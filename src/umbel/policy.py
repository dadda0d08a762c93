"""When a round may begin, when it is over, and what happens if too few answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from umbel.arguments import number, whole
from umbel.errors import UsageError
from umbel.sample import Sampler

OnMiss = Literal["retry", "skip", "stop"]
ANYBODY = 1e-6
"""The quorum of an evaluation, which changes nothing: one answer is enough; none at all is a mistake to be seen."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPolicy:
    """How a round opens and closes; made by `rounds`."""

    min_nodes: int = 1
    wait: float = 3600
    quorum: float = 1.0
    deadline: float = 3600
    spare: int = 0
    on_miss: OnMiss = "retry"
    retries: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "quorum", number(self.quorum, "quorum", least=0, most=1))
        for name in ("min_nodes", "spare", "retries"):
            object.__setattr__(self, name, whole(getattr(self, name), name, least=0))
        for name in ("wait", "deadline"):
            object.__setattr__(self, name, number(getattr(self, name), f"{name} (seconds)", above=0))
        if self.on_miss not in ("retry", "skip", "stop"):
            raise UsageError(f"on_miss is {self.on_miss!r}", advice='take "retry", "skip" or "stop"')


def rounds(
    *,
    min_nodes: int = 1,
    wait: float = 3600,
    quorum: float = 1.0,
    deadline: float = 3600,
    spare: int = 0,
    on_miss: OnMiss = "retry",
    retries: int = 3,
) -> RoundPolicy:
    """How a round opens and closes.

    Args:
        min_nodes: a round opens when so many clients are there.
        wait: seconds to wait for them.
        quorum: the share of the cohort that must answer.
        deadline: seconds from the first question to the close.
        spare: clients drawn in addition. In a simulation they replace failed ones, in order; over a network
            all are asked and the first answers count.
        on_miss: what happens when the quorum is missed: draw a new cohort and ask again; commit the round
            with nothing in it and go on; or stop the run.
        retries: how often a missed round is asked again before the run stops.

    Raises:
        UsageError: an argument that makes no sense.
    """
    return RoundPolicy(
        min_nodes=min_nodes,
        wait=wait,
        quorum=quorum,
        deadline=deadline,
        spare=spare,
        on_miss=on_miss,
        retries=retries,
    )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """When the clients evaluate the new model; made by `evaluation`."""

    every: int = 1
    cohort: Sampler | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", whole(self.every, "evaluation(): every", least=0))


def evaluation(*, every: int = 1, cohort: Sampler | None = None) -> Evaluation:
    """When the clients evaluate the new model. One answer is enough; who fails is in ``result.failures``.

    Args:
        every: after each so many rounds; 0: never.
        cohort: who evaluates; by default as many as train, drawn independently.

    Raises:
        UsageError: every is negative or no whole number.
    """
    return Evaluation(every=every, cohort=cohort)


__all__ = ["ANYBODY", "Evaluation", "OnMiss", "RoundPolicy", "evaluation", "rounds"]

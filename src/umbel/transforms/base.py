"""What happens to an update on its way: five hooks, and the chain they stand in.

    server, once         init(facts) -> state
    server, each round   plan(state, round) -> Arrays | None        joins the broadcast
    node, per update     client(update, plan, task) -> Update       outside the user's code
    server, per update   ingest(update, plan) -> Update
    server, on the sum   release(sum, plan, state, noise) -> (sum, state)

A chain nests: on the client side first to last, on the server side last to first. What arrives in between is what
``expects`` says: a step that changes shapes or dtypes declares it there.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import numpy as np

from umbel.aggregate.base import Aggregator, Summing
from umbel.aggregate.expected import Expected
from umbel.arrays import Arrays
from umbel.errors import BadUpdate, ChainError
from umbel.rng import stream
from umbel.spec import Spec
from umbel.update import Update

Trait = Literal["bounded", "uniform", "integer", "sealed"]
"""What is true of an update at a place in the chain.

bounded: its norm has a known limit. uniform: every client counts the same. integer: its numbers are
integers of a known range. sealed: nobody can read it but in a sum.
"""
Noise = Callable[[int], bytes]
"""A source of that many cryptographically random bytes; never the run's seed."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a run before anything is sent.

    Attributes:
        rounds: how many rounds it has.
        population: how many clients there are.
        spec: the model's spec.
        rate: the chance of one client to be in a cohort, if the sampler knows it.
    """

    rounds: int
    population: int
    spec: Spec
    rate: float | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a step knows of one client's update on its node.

    Attributes:
        client: the client's name.
        round: the round, from 1.
        key: names this task's stream of random numbers; see `rng`.
        noise: a source of cryptographically random bytes, for privacy and secrets.
        state: what the chain keeps at this client from round to round, such as the residual of a compression:
            arrays, numbers, text or bytes by name. A change counts if the update does.
    """

    client: str
    round: int
    key: int
    noise: Noise
    state: MutableMapping[str, Any]

    def rng(self, *names: str | int) -> np.random.Generator:
        """Random numbers that are the same when the task is done again: for rounding, never for privacy."""
        return stream(self.key, "transform", *names)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """The sum over a cohort, before it is divided.

    Attributes:
        total: the sum of weight * update.
        weight: what a mean divides it by; a step may set one that does not depend on who was counted.
        clients: who is in it, in order. Nobody, where a cohort was empty.
    """

    total: Arrays
    weight: float
    clients: tuple[str, ...]


class Transform(ABC):
    """One step of an update's way. A subclass is a frozen dataclass of plain values, so that it travels.

    Attributes:
        needs: what must be true of an update before this step.
        gives: what is true of it afterwards.
        breaks: what is no longer true of it afterwards.
    """

    needs: ClassVar[frozenset[Trait]] = frozenset()
    gives: ClassVar[frozenset[Trait]] = frozenset()
    breaks: ClassVar[frozenset[Trait]] = frozenset()

    def check(self, facts: Facts) -> None:
        """Refuse a run in which this step cannot work; before anything is sent, whenever a run starts or goes on.

        Raises:
            ChainError: why not, and what to change.
        """

    def expects(self, expected: Expected) -> Expected:
        """What leaves the client, from what this step is given."""
        return expected

    def init(self, facts: Facts) -> Any:
        """The server's state at the start: a dataclass, arrays or plain values."""
        del facts
        return None

    def plan(self, state: Any, round: int) -> Arrays | None:  # the field's word
        """What the clients need to know this round."""
        del state, round
        return None

    def client(self, update: Update, plan: Arrays | None, task: Task) -> Update:
        """The update, changed on the node. It is a delta or a value."""
        del plan, task
        return update

    def ingest(self, update: Update, plan: Arrays | None) -> Update:
        """The update, changed on arrival at the server."""
        del plan
        return update

    def release(self, released: Released, plan: Arrays | None, state: Any, noise: Noise) -> tuple[Released, Any]:
        """The sum over the cohort, changed before it is divided; and the next state.

        It is called once for each round that met its quorum, an empty cohort included.
        """
        del plan, noise
        return released, state

    def overrides(self, hook: str) -> bool:
        """Does this step do something at that hook?"""
        return getattr(type(self), hook) is not getattr(Transform, hook)


@final
@dataclass(frozen=True, slots=True)
class Chain:
    """Transforms in the order in which an update meets them on its client.

    Raises:
        ChainError: the order, or the aggregator behind it, makes no sense.
    """

    steps: tuple[Transform, ...] = ()

    def __post_init__(self) -> None:
        for step in self.steps:
            if not isinstance(step, Transform):
                raise ChainError(f"{step!r} is no transform", advice="give umbel.transforms.clip(...) and the like")

    def check_order(self, aggregator: Aggregator) -> None:
        """Refuse a chain that makes no sense with this aggregator.

        Raises:
            ChainError: which step, what it lacks, and what to move where.
        """
        true: set[Trait] = {"uniform"} if aggregator.uniform else set()
        sealed_by = ""
        for place, step in enumerate(self.steps):
            name = _name(step)
            if sealed_by and step.overrides("client"):
                raise ChainError(
                    f"{name} stands behind {sealed_by}, but nobody can read a sealed update",
                    advice=f"put {name} in front of {sealed_by}",
                )
            for trait in sorted(step.needs - true):
                raise ChainError(f"{name} needs {trait} updates", advice=self._advice(trait, place))
            if _guards(step) and not isinstance(aggregator, Summing):
                raise ChainError(
                    f"{name} works on the sum of the updates, and {type(aggregator).__name__} makes no sum",
                    advice="aggregate with umbel.aggregate.mean() or umbel.aggregate.sum()",
                )
            true = (true - step.breaks) | step.gives
            sealed_by = sealed_by or (name if "sealed" in step.gives else "")

    def _advice(self, trait: Trait, place: int) -> str:
        later = next((_name(s) for s in self.steps[place + 1 :] if trait in s.gives), "")
        if later:
            return f"move {later} in front of it"
        return {
            "bounded": "put umbel.transforms.clip(norm) in front of it",
            "uniform": "aggregate with umbel.aggregate.mean(uniform=True)",
            "integer": "put a quantising transform in front of it",
            "sealed": "put a sealing transform in front of it",
        }[trait]

    @property
    def guard(self) -> str:
        """The name of a step that protects the sum, so that nothing may go beside it; "" if there is none."""
        return next((_name(step) for step in self.steps if _guards(step)), "")

    @property
    def releases(self) -> bool:
        """Is the sum changed before it is divided?"""
        return any(step.overrides("release") for step in self.steps)

    def check(self, facts: Facts) -> None:
        """Refuse a run in which a step cannot work.

        Raises:
            ChainError: why not, and what to change.
        """
        buffer = next((e.name for e in facts.spec.entries if e.role == "buffer"), "")
        if self.guard and buffer:
            raise ChainError(
                f"{self.guard} protects trained entries, and the buffer {buffer!r} would leave beside them",
                advice='keep buffers at the clients, share=umbel.entries("*", but="*running*"), or use layers without',
            )
        for step in self.steps:
            step.check(facts)

    def expects(self, expected: Expected) -> Expected:
        """What leaves the client; first to last."""
        for step in self.steps:
            expected = step.expects(expected)
        return expected

    def init(self, facts: Facts) -> tuple[Any, ...]:
        """The states of all steps."""
        return tuple(step.init(facts) for step in self.steps)

    def plan(self, states: Sequence[Any], round: int) -> tuple[Arrays | None, ...]:
        """The plans of all steps."""
        return tuple(step.plan(state, round) for step, state in zip(self.steps, states, strict=True))

    def client(self, update: Update, plans: Sequence[Arrays | None], task: Task) -> Update:
        """First to last.

        Raises:
            BadUpdate: the update carries something that a guarded chain cannot protect.
        """
        if self.guard and update.extra:
            raise BadUpdate(
                f"it returned extra={sorted(update.extra)}, which {self.guard} does not protect",
                advice="return nothing beside the update, or take the transform out of the strategy",
            )
        for step, plan in zip(self.steps, plans, strict=True):
            update = step.client(update, plan, task)
        return update

    def ingest(self, update: Update, plans: Sequence[Arrays | None]) -> Update:
        """Last to first."""
        for step, plan in reversed(list(zip(self.steps, plans, strict=True))):
            update = step.ingest(update, plan)
        return update

    def release(
        self, released: Released, plans: Sequence[Arrays | None], states: Sequence[Any], noise: Noise
    ) -> tuple[Released, tuple[Any, ...]]:
        """Last to first."""
        after = list(states)
        for i in reversed(range(len(self.steps))):
            released, after[i] = self.steps[i].release(released, plans[i], states[i], noise)
        return released, tuple(after)


def _guards(step: Transform) -> bool:
    return step.overrides("release") or "sealed" in step.gives


def _name(step: Transform) -> str:
    return type(step).__name__


__all__ = ["Chain", "Facts", "Noise", "Released", "Task", "Trait", "Transform"]

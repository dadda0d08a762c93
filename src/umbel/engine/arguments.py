"""What a main may give to ``fed``: refused, in words, where it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from umbel.aggregate import Aggregator, mean
from umbel.aggregate.expected import LEARNED, check_finite
from umbel.arrays import Arrays
from umbel.correction import LocalRule
from umbel.engine.question import Question
from umbel.errors import BadUpdate, UsageError
from umbel.policy import RoundPolicy
from umbel.sample import Population, Sampler
from umbel.transforms import Chain, Transform

_EXAMPLES: Mapping[type, str] = {
    Sampler: "umbel.sample.fraction(0.1)",
    Aggregator: "umbel.aggregate.mean()",
    RoundPolicy: "umbel.rounds(quorum=0.8)",
    LocalRule: "umbel.fed_prox(mu=0.1).local",
    Mapping: '{"name": ...}',
}


def check_type(what: str, value: Any, kind: type, *, needed: bool = False) -> None:
    """Refuse what is not of a kind; None is of every kind, unless it is needed.

    Raises:
        UsageError: it is something else.
    """
    if not isinstance(value, kind) and (needed or value is not None):
        raise UsageError(f"{what} is a {type(value).__name__} ({value!r:.80})", advice=f"give {_EXAMPLES[kind]}")


def as_metrics(metrics: Any) -> dict[str, Any]:
    """What main says of a round, as it is kept; a tensor as the array that it holds.

    Raises:
        UsageError: it is no mapping.
    """
    check_type("metrics", metrics, Mapping)
    return {name: _without_graph(value) for name, value in (metrics or {}).items()}


def _without_graph(value: Any) -> Any:
    if not hasattr(value, "detach"):
        return value
    array: Any = np.asarray(value.detach().cpu().double())
    return array if array.ndim else float(array)


def as_arrays(what: str, value: Any) -> Arrays:
    """A model or other arrays, in Umbel's own layout.

    Raises:
        UsageError: it is neither `Arrays` nor a mapping of names to arrays.
    """
    if isinstance(value, Arrays):
        return value.canonical()
    if isinstance(value, Mapping):
        return Arrays(value)
    raise UsageError(f"{what} is a {type(value).__name__}", advice="give umbel.Arrays, or a mapping of names to arrays")


def check_trainable(what: str, model: Arrays) -> None:
    """Refuse NaN and infinity where clients train; what is frozen may hold them, as a mask does.

    Raises:
        UsageError: names the entry.
    """
    try:
        check_finite(model, bounded=False, roles=LEARNED)
    except BadUpdate as error:
        raise UsageError(
            f"{what}: {error.what}",
            advice="look at how it was made, or where it was read from: clients cannot train it",
        ) from error


def as_chain(transforms: Any, aggregator: Aggregator) -> Chain:
    """A chain of transforms that works with this aggregator.

    Raises:
        ChainError: it makes no sense.
        UsageError: it is no sequence of transforms.
    """
    if isinstance(transforms, Transform) or not isinstance(transforms, Sequence | Chain):
        raise UsageError(f"transforms is a {type(transforms).__name__}", advice="give a list: transforms=[...]")
    chain = transforms if isinstance(transforms, Chain) else Chain(tuple(transforms))
    chain.check_order(aggregator)
    return chain


def check_drawn(cohort: Sampler, drawn: Sequence[str], population: Population) -> None:
    """Refuse a cohort of clients who are not there.

    Raises:
        UsageError: names one of them.
    """
    if not population.all_there(drawn):
        stranger = next(name for name in drawn if name not in population)
        raise UsageError(
            f"the sampler {cohort!r} drew {stranger!r}, who is none of the {len(population)} clients",
            advice="a sampler draws names from population.names",
        )


def aggregated(
    question: Question,
    aggregator: Aggregator | None,
    aggregators: Mapping[str, Aggregator] | None,
    transforms: Sequence[Transform] | Chain,
) -> Question:
    """The question with what becomes of its answers.

    Raises:
        ChainError: the transforms make no sense with each other or with the aggregator.
        UsageError: an argument is of the wrong kind.
    """
    check_type("aggregators", aggregators, Mapping)
    extra = {name: aggregator_of(each) for name, each in (aggregators or {}).items()}
    main = aggregator_of(aggregator)
    return replace(
        question,
        aggregator=main,
        extra_aggregators=extra,
        expected=main.expects(question.sent),
        extra_expected={name: each.expects(None) for name, each in extra.items()},
        chain=as_chain(transforms, main),
    )


def aggregator_of(aggregator: Aggregator | None) -> Aggregator:
    """The aggregator, or the mean where none is given.

    Raises:
        UsageError: it is something else.
    """
    check_type("aggregator", aggregator, Aggregator)
    return mean() if aggregator is None else aggregator


__all__ = [
    "aggregated",
    "aggregator_of",
    "as_arrays",
    "as_chain",
    "as_metrics",
    "check_drawn",
    "check_trainable",
    "check_type",
]

"""One call of ``fed``: what identifies it when a run resumes, and what can go wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from umbel.aggregate.expected import check_finite
from umbel.aggregate.weighted_sum import sum_spec
from umbel.arrays import Arrays
from umbel.codec import fingerprint
from umbel.engine.exchange import Close
from umbel.engine.ports import Record
from umbel.engine.question import EVALUATED, Answer, Question
from umbel.errors import BadUpdate, EmptyPopulation, Failure, NotReproducible, QuorumMissed, RunError
from umbel.metrics import Combiner
from umbel.policy import ANYBODY, RoundPolicy
from umbel.sample import Population, Sampler

_NAMED = 10  # clients in an error


def nothing(question: Question) -> Answer:
    """The answer when nobody was counted: of models an update of zeros."""
    value = None
    if question.sent is not None:
        value = Arrays.blank(sum_spec(question.sent.spec, model=True)).zeros()
    return Answer(value=value, result=question.aggregator.result if question.aggregator else EVALUATED)


def digest_of(
    question: Question, cohort: Sampler, policy: RoundPolicy, rules: Mapping[str, Combiner]
) -> Callable[[], dict[str, str]]:
    """What identifies a call, part by part, so that a difference can be named.

    Parts that user code may change are looked at now. The model and extra arrays cannot change, and are read when the
    result is called: mostly when they were written to the disk anyway, so that their digests are known.
    """
    parts = {
        "the call": (question.kind, question.name),
        "config": dict(question.config),
        "the aggregator": question.aggregator,
        "the aggregators of extra": dict(question.extra_aggregators),
        "the transforms": question.chain,
        "the local rule": question.rule,
        "the cohort": cohort,
        "the policy": policy,
        "the metrics": dict(rules),
    }
    now = {name: fingerprint(value) for name, value in parts.items()}
    arrays = {"the model": question.model, "extra": dict(question.extra)}
    return lambda: now | {name: fingerprint(value) for name, value in arrays.items()}


def check_record(record: Record, digest: Mapping[str, str]) -> None:
    """Refuse a record of another call.

    Raises:
        NotReproducible: names what differs.
    """
    changed = [name for name, value in digest.items() if record.digest.get(name) != value]
    if changed:
        raise NotReproducible(
            f"round {record.round}, call {record.call}: before the interruption main asked for something else; "
            f"what differs: {', '.join(changed)}",
            advice="main must ask the same again when it starts from the same fed.state: draw from fed.rng, not from "
            "the time or a global generator; if you changed the program, start in another directory",
        )


def check_population(population: Population, question: Question, policy: RoundPolicy) -> None:
    """Refuse to ask nobody, or too few.

    Raises:
        EmptyPopulation: how many are there, and how many are needed.
    """
    if len(population) == 0:
        raise EmptyPopulation(
            f"round {question.round}: there is no client to ask",
            advice="give umbel.Simulation(clients=...) at least one client, or check the labels that are asked for",
        )
    if len(population) < policy.min_nodes:
        raise EmptyPopulation(
            f"round {question.round} needs min_nodes={policy.min_nodes} clients, {len(population)} are there",
            advice="lower min_nodes in umbel.rounds(...), or wait for more clients",
        )


def check_aggregate(question: Question, arrays: Arrays | None) -> None:
    """Refuse an aggregate that is not finite.

    Raises:
        RunError: names the entry.
    """
    try:
        if arrays is not None:
            check_finite(arrays)
    except BadUpdate as error:
        raise RunError(
            f"round {question.round}: the aggregate overflowed, though each update was finite: {error.what}",
            advice="clip the updates (umbel.transforms.clip), or lower the learning rate",
        ) from error


def quorum_missed(
    question: Question,
    close: Close,
    failures: tuple[Failure, ...],
    policy: RoundPolicy,
    *,
    times: int,
    overtaken: bool = False,
) -> QuorumMissed:
    """The error that ends a run in which too few clients answered.

    Args:
        question: what was asked.
        close: how the last exchange ended.
        failures: of all of them.
        policy: when the quorum is reached.
        times: how often a cohort was asked.
        overtaken: did the deadline end the last of them, while the quorum could still be reached?
    """
    lines = list(dict.fromkeys(f"  {f}" for f in failures))  # who fails again when asked again stands there once
    shown = "\n".join(lines[:5]) + ("\n  ..." if len(lines) > 5 else "")
    asked = f", asked {times} times" if times > 1 else ""
    wanted = f"the quorum of {policy.quorum:.0%}" if policy.quorum > ANYBODY else "a single answer"
    traceback = next((f"\n{f.traceback}" for f in failures if f.traceback), "")
    counted = f"{len(close.folded)} of {close.asked} clients answered{asked}"
    said = f"{counted} before {wanted} was out of reach"
    mend = (
        "mend the clients named above and run again: the run goes on from its last commit; or allow for failures with"
    )
    if overtaken:
        some = ", ".join(close.revoked[:_NAMED]) + (", ..." if len(close.revoked) > _NAMED else "")
        said = f"{counted} within {policy.deadline:g} seconds, too few for {wanted}; not in time: {some}"
        mend = "give clients more time with umbel.rounds(deadline=), or do without the slow ones:"
    return QuorumMissed(
        f"round {question.round}, {question.label}: {said}.\n{shown}{traceback}".rstrip(),
        failures=failures,
        advice=f'{mend} umbel.rounds(quorum=0.8), spare=, or on_miss="skip"',
    )


__all__ = ["check_aggregate", "check_population", "check_record", "digest_of", "nothing", "quorum_missed"]

"""``fed``: what the server's main works with. Exchanges become rounds, rounds become a run.

Resuming runs main again with ``fed.state`` as of the last commit. Exchanges that were finished since then are
recorded under (round, n-th call, digest of arguments) and are not repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np

from umbel import metrics as combiners
from umbel import rng, schedule
from umbel.aggregate import Aggregator
from umbel.aggregate.weighted_sum import WeightedSum
from umbel.arguments import whole
from umbel.arrays import Arrays
from umbel.codec import fingerprint
from umbel.correction import LocalRule
from umbel.engine.arguments import (
    aggregated,
    aggregator_of,
    as_arrays,
    as_metrics,
    check_drawn,
    check_trainable,
    check_type,
)
from umbel.engine.calls import check_aggregate, check_population, digest_of, nothing, quorum_missed
from umbel.engine.driver import Gather, Keep, Loop, Mark, Publish, conduct
from umbel.engine.exchange import Exchange
from umbel.engine.history import History
from umbel.engine.plan import Plan
from umbel.engine.ports import Commit, Record
from umbel.engine.question import Answer, Kind, Question
from umbel.engine.reduction import Reduced
from umbel.engine.replay import Replay
from umbel.engine.state import held
from umbel.engine.totals import OpenRound, Totals, join, totals_of
from umbel.errors import (
    Failure,
    HandlerMissing,
    UsageError,
)
from umbel.policy import ANYBODY, RoundPolicy
from umbel.sample import Population, Sampler
from umbel.transforms import Chain, Facts, Released, Transform


@final
class Federation:
    """What ``@server.main`` receives as ``fed``.

    Attributes:
        initial: the model at the start.
        state: what the last commit held; None at the start.
        round: the round that is under way, from 1.
        history: the committed rounds.
        totals: what adds up over them.
        stopped: why the run ends early, or "".
    """

    def __init__(
        self,
        plan: Plan,
        perform: Callable[[Loop], Any],
        *,
        commits: Sequence[Commit] = (),
        records: Sequence[Record] = (),
        best: Arrays | None = None,
    ) -> None:
        self._plan = plan
        self._perform = perform
        last = commits[-1] if commits else None
        self.initial = plan.initial
        self.state: Any = last.state if last else None
        self.history = History([row for c in commits for row in c.rows])
        self._done = self.history[-1]["round"] if len(self.history) else 0
        self.round: int = self._done + 1
        self.totals = totals_of(commits, best)
        self.stopped = ""
        self._sequence = max([last.sequence if last else 0, *(r.sequence for r in records)])
        self._transforms: dict[str, Any] = dict(last.transforms) if last else {}
        self._replay = Replay(commits, records)
        self._calls = 0
        self._uses: Counter[str] = Counter()  # of chains, in the round that is under way
        self._checked: set[str] = set()  # chains that this process has checked
        self._open, self._totals = OpenRound(), Totals()  # of the round that is under way
        self._looping = 0  # the round whose loop body runs
        self._due: Commit | None = None  # the rounds since the last durable commit

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self._plan.seed

    @property
    def handlers(self) -> frozenset[str]:
        """What the clients can be asked: "train", "evaluate", and names of queries."""
        return self._plan.handlers

    @property
    def total_rounds(self) -> int | None:
        """How many rounds the run has in all, if it was said."""
        return self._plan.rounds

    def rng(self, *names: str | int) -> np.random.Generator:
        """A stream of random numbers for the server's own decisions, by name and round."""
        return rng.stream(self.seed, "main", self._moment, *names)

    @property
    def _moment(self) -> int:
        """The round, as it was when main came to this place for the first time."""
        return 1 if self._replay.past else self.round

    def rounds(self, count: int | None = None) -> Iterator[int]:
        """The rounds that are still to be done, after the last commit.

        Args:
            count: how many in all; what ``umbel.run(rounds=)`` or the server app says has precedence.

        Raises:
            UsageError: nobody says how many, or a round ended without ``fed.commit``.
        """
        total = self._plan.rounds if self._plan.rounds is not None else count
        if total is None:
            raise UsageError("nobody says how many rounds", advice="write fed.rounds(20), or give rounds= to umbel.run")
        total = whole(total, "fed.rounds(): the number of rounds", least=0)
        if self._replay.past:
            self._restart_calls()
        self._replay.begin_rounds()
        first = self._done + 1
        for r in range(first, total + 1):
            if self.stopped:
                return
            if self.round != r:  # else main asked something before the round, or after the last commit
                self.round = r
                self._restart_calls()
            self._plan.reseed(r, self._calls)
            try:
                self._looping = r
                yield r
            finally:  # also when main leaves the loop
                self._looping = 0
            if self._done < r:
                raise UsageError(
                    f"round {r} ended without fed.commit",
                    advice='end each round with fed.commit({"model": model}): nothing else of it is kept',
                )

    def _restart_calls(self) -> None:
        self._calls = 0
        self._uses.clear()

    # --- exchanges ---------------------------------------------------------------------------

    def train(
        self,
        model: Arrays,
        *,
        cohort: Sampler,
        aggregator: Aggregator | None = None,
        config: Mapping[str, Any] | None = None,
        extra: Mapping[str, Arrays] | None = None,
        aggregators: Mapping[str, Aggregator] | None = None,
        transforms: Sequence[Transform] | Chain = (),
        local: LocalRule | None = None,
        metrics: Mapping[str, Any] | None = None,
        policy: RoundPolicy | None = None,
    ) -> Answer:
        """Have a cohort train a model.

        Args:
            model: what is sent.
            cohort: who is asked.
            aggregator: how updates become one; by default their weighted mean.
            config: settings of this round; schedules in it are resolved.
            extra: more named arrays that are sent, as ``ctx.extra``.
            aggregators: how the updates' extra arrays become one, by name; others are refused.
            transforms: what happens to each update on its way.
            local: how local training is corrected.
            metrics: how the clients' metrics combine, by name; by default the weighted mean.
            policy: quorum, deadline, spares; see `umbel.rounds`.

        Raises:
            QuorumMissed: too few answered, as often as the policy asks again.
        """
        check_type("local", local, LocalRule)
        question = self._question("train", "train", model, config, extra)
        question = aggregated(replace(question, rule=local), aggregator, aggregators, transforms)
        return self._ask(question, cohort, metrics, policy)

    def evaluate(
        self,
        model: Arrays,
        *,
        cohort: Sampler,
        config: Mapping[str, Any] | None = None,
        extra: Mapping[str, Arrays] | None = None,
        metrics: Mapping[str, Any] | None = None,
        policy: RoundPolicy | None = None,
    ) -> Answer:
        """Have a cohort evaluate a model; the answer has metrics only. Arguments as for `train`.

        By default one answer is enough.
        """
        return self._ask(self._question("evaluate", "evaluate", model, config, extra), cohort, metrics, policy)

    def query(
        self,
        name: str,
        model: Arrays | None = None,
        *,
        cohort: Sampler,
        aggregator: Aggregator | None = None,
        config: Mapping[str, Any] | None = None,
        extra: Mapping[str, Arrays] | None = None,
        aggregators: Mapping[str, Aggregator] | None = None,
        transforms: Sequence[Transform] | Chain = (),
        metrics: Mapping[str, Any] | None = None,
        policy: RoundPolicy | None = None,
    ) -> Answer:
        """Ask a cohort the query called ``name``; its handler returns values. Arguments as for `train`."""
        question = self._question("query", name, model, config, extra)
        question = aggregated(question, aggregator, aggregators, transforms)
        return self._ask(question, cohort, metrics, policy)

    def _question(
        self,
        kind: Kind,
        name: str,
        model: Arrays | None,
        config: Mapping[str, Any] | None,
        extra: Mapping[str, Arrays] | None,
    ) -> Question:
        if name not in self._plan.handlers or (kind == "query" and name in ("train", "evaluate")):
            raise HandlerMissing(
                f"the client app has no handler for {name!r}",
                advice=f"write @client.{f'query({name!r})' if kind == 'query' else kind} in front of a function",
            )
        if model is None and kind != "query":
            raise UsageError(f"fed.{kind} needs a model", advice="give model= to ServerApp, or pass umbel.Arrays")
        check_type("extra", extra, Mapping)
        sent = as_arrays("the model", model) if model is not None else None
        if sent is not None and kind == "train":
            check_trainable("the model given to fed.train", sent)
        return Question(
            kind=kind,
            name=name,
            seed=self.seed,
            round=self._moment,
            call=self._calls + 1,
            model=sent,
            extra={k: as_arrays(f"extra[{k!r}]", v) for k, v in (extra or {}).items()},
            config=schedule.resolve(config or {}, self._moment),
        )

    def _ask(
        self, question: Question, cohort: Sampler, metrics: Mapping[str, Any] | None, policy: RoundPolicy | None
    ) -> Answer:
        self._check_open(f"asks ({question.label}) behind its commit")
        check_type("cohort", cohort, Sampler, needed=True)
        check_type("policy", policy, RoundPolicy)
        check_type("metrics", metrics, Mapping)
        rules = combiners.as_rules(metrics)
        self._calls += 1
        evaluation = question.kind == "evaluate"
        policy = policy or RoundPolicy(quorum=ANYBODY if evaluation else 1.0)
        answer: Answer = self._perform(self._recorded(question, cohort, rules, policy))
        if not self._replay.past:  # else a commit has it
            self._open.add(answer, evaluation=evaluation)
            for totals in (self.totals, self._totals):
                totals.add_answer(answer, evaluation=evaluation)
        self._plan.reseed(self._moment, self._calls)
        return answer

    def _recorded(
        self, question: Question, cohort: Sampler, rules: Mapping[str, Any], policy: RoundPolicy
    ) -> Generator[Any, Any, Answer]:
        """The answer of an exchange: the recorded one, or a new one that is recorded before it is used."""
        chain_name = self._chain_name(question.chain)
        digest = digest_of(question, cohort, policy, rules) if self._plan.durable else dict[str, str]
        record = self._replay.find(self.round, self._calls, digest)
        if record is None:
            answer, states = yield from self._exchange(question, cohort, rules, policy, chain_name)
            record = Record(
                round=self.round,
                call=self._calls,
                digest=digest(),
                sequence=self._sequence,
                answer=answer,
                transforms=states,
            )
            if self._due is None:  # else it is done again, like the rounds since the last durable commit
                yield Keep(record)
        self._replay.note(record)
        if not self._replay.past:
            self._transforms.update(record.transforms)
        return record.answer

    def _exchange(
        self, question: Question, cohort: Sampler, rules: Mapping[str, Any], policy: RoundPolicy, chain_name: str
    ) -> Generator[Any, Any, tuple[Answer, dict[str, Any]]]:
        missed: tuple[Failure, ...] = ()
        times = 0
        for attempt in range(1 + (policy.retries if policy.on_miss == "retry" else 0)):
            population = yield Gather(policy.min_nodes, policy.wait)
            check_population(population, question, policy)
            states = self._chain_states(question, chain_name, population, cohort)
            plans = question.chain.plan(states, question.round)
            exchange = self._draw(population, cohort, policy, attempt)
            if not exchange.may_meet(without={f.client for f in missed if f.refused}):
                continue  # nobody works for nothing: who refuses does so again
            times += 1
            self._sequence += 1
            question = replace(question, sequence=self._sequence, attempt=attempt, plans=plans)
            close, reduced = yield from conduct(question, exchange, policy.deadline)
            if close.met:
                answer, states = self._conclude(question, reduced, rules, states)
                answer = replace(answer, cohort=close.asked, failures=missed + close.failures)
                return answer, ({chain_name: states} if states else {})
            missed += close.failures
        if policy.on_miss != "skip":
            raise quorum_missed(question, close, missed, policy, times=times, overtaken=exchange.overtaken)
        return replace(nothing(question), cohort=close.asked, failures=missed, met=False), {}

    def _chain_name(self, chain: Chain) -> str:
        """What the states of a chain are kept under; a chain used twice in a round has two."""
        mark = fingerprint(chain)
        self._uses[mark] += 1
        return f"{mark}/{self._uses[mark]}"

    def _chain_states(self, question: Question, name: str, population: Population, cohort: Sampler) -> tuple[Any, ...]:
        if not question.chain.steps:
            return ()
        if name not in self._checked:
            spec = question.model.spec if question.model is not None else Arrays({}).spec
            rate = cohort.rate(len(population))
            facts = Facts(rounds=self._plan.rounds or 0, population=len(population), spec=spec, rate=rate)
            question.chain.check(facts)
            self._checked.add(name)
            if name not in self._transforms:
                self._transforms[name] = question.chain.init(facts)
        states: tuple[Any, ...] = self._transforms[name]
        return states

    def _draw(self, population: Population, cohort: Sampler, policy: RoundPolicy, attempt: int) -> Exchange:
        names = (self.round, self._calls, attempt)
        drawn = cohort.draw(population, round=self.round, rng=rng.stream(self.seed, "cohort", *names))
        check_drawn(cohort, drawn, population)
        spares: list[str] = []
        if policy.spare:
            taken = set(drawn)
            rest = [name for name in cohort.eligible(population).names if name not in taken]
            order = rng.stream(self.seed, "spare", *names).permutation(len(rest))
            spares = [rest[i] for i in order[: policy.spare]]
        return Exchange(drawn, spares, quorum=policy.quorum, race=self._plan.race)

    def _conclude(
        self, question: Question, reduced: Reduced, rules: Mapping[str, Any], states: tuple[Any, ...]
    ) -> tuple[Answer, tuple[Any, ...]]:
        aggregator, acc = question.aggregator, reduced.acc
        if question.chain.releases and isinstance(acc, WeightedSum) and acc.total is not None:
            summed = Released(total=acc.total.freeze(), weight=acc.weight, clients=tuple(reduced.names))
            summed, states = question.chain.release(summed, question.plans, states, self._plan.noise)
            acc.total, acc.weight = summed.total, summed.weight
        value = aggregator.finish(acc) if aggregator is not None else None
        extra = {name: question.extra_aggregators[name].finish(a) for name, a in sorted(reduced.extra.items())}
        answer = nothing(question) if value is None else Answer(value=value, result=aggregator_of(aggregator).result)
        answer = replace(
            answer,
            aggregated=value is not None,
            extra={name: arrays for name, arrays in extra.items() if arrays is not None},
            metrics=combiners.combine(rules, reduced.rows, warn=self._plan.warn),
            clients=tuple(reduced.names),
            rows=tuple(reduced.metrics),
        )
        for arrays in (answer.value, *answer.extra.values()):
            check_aggregate(question, arrays)
        return answer, states

    # --- commits -----------------------------------------------------------------------------

    def commit(
        self,
        state: Any,
        *,
        metrics: Mapping[str, Any] | None = None,
        train: Mapping[str, Any] | None = None,
        evaluate: Mapping[str, Any] | None = None,
    ) -> None:
        """End the round: state, metrics, clients' states and the privacy ledger become durable together.

        Args:
            state: what the next round needs, and a resumed run finds in ``fed.state``: a tree of plain values,
                arrays, `Arrays` and dataclasses. What it holds as "model" is the run's model.
            metrics: the round's metrics for the history.
            train: the same, of a stage of its own.
            evaluate: the same, of a stage of its own.

        Raises:
            UsageError: this round of ``fed.rounds`` is committed already, or the state cannot be kept.
        """
        self._check_open("is committed twice")
        opening = self._replay.end_round(self.round, self._calls)
        model = model_of(state)
        stages: dict[str, Mapping[str, Any]] = {
            "": as_metrics(metrics),
            "train": as_metrics(train),
            "evaluate": as_metrics(evaluate),
        }
        if model is not None and self._plan.central is not None:
            stages["central"], failure = self._plan.central(model, self.round)
            self.note_failures([failure] if failure else [])
        row = self._open.row(self.round, {stage: held(dict(values)) for stage, values in stages.items() if values})
        self.history.append(row)
        if self._plan.checkpoint.is_best(self.history):
            self.totals.best = self._totals.best = model
        commit = Commit(
            rows=(row,),
            state=held(state),
            transforms=dict(self._transforms),
            sequence=self._sequence,
            opening=opening,
            **self._totals.fields(),
        )
        self._due = join(self._due, commit)  # one step: Ctrl-C finds the whole round here, or nothing of it
        self.state, self._open, self._totals = commit.state, OpenRound(), Totals()
        self._done, self.round = self.round, self.round + 1
        self._restart_calls()
        self._perform(self._committed(commit.sequence))

    def _check_open(self, words: str) -> None:
        if 0 < self._looping <= self._done:  # a resumed main does not come to this place again
            raise UsageError(
                f"round {self._looping} {words}", advice="call fed.commit once, as the last thing in each round"
            )

    def _committed(self, sequence: int) -> Loop:
        if self._plan.checkpoint.due(self._done):
            yield from self._keep()
        else:
            yield Mark(sequence)
        self.stopped = self.stopped or (yield Publish(self.history))

    def flush(self) -> None:
        """Write down what was committed but not yet due."""
        if self._due is not None:
            self._perform(self._keep())

    def _keep(self) -> Loop:
        assert self._due is not None
        yield Keep(self._due)
        self._due = None

    @property
    def rest(self) -> Commit:
        """What came after the last commit: what main asked then, and callbacks that failed."""
        return Commit(rows=(), state=None, **self._totals.fields())

    def note_failures(self, failures: Sequence[Failure]) -> None:
        """Take in what went wrong beside the clients' tasks; it is kept with the next commit."""
        for totals in (self.totals, self._totals):
            totals.failures.extend(failures)


def model_of(state: Any) -> Arrays | None:
    """The model in a committed state: the `Arrays`, or the mapping of arrays, that it holds under, or as, "model"."""
    model = state.get("model") if isinstance(state, Mapping) else getattr(state, "model", None)
    if isinstance(model, Mapping) and model and all(isinstance(v, np.ndarray | float) for v in model.values()):
        return Arrays(model)
    return model if isinstance(model, Arrays) else None


__all__ = ["Federation", "model_of"]

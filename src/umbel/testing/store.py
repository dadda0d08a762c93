"""What a `Store` must do: keep what it is given, forget what is over, and give it back in the next process."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from umbel.arrays import Arrays
from umbel.codec import encode
from umbel.engine.history import Row
from umbel.engine.ports import Commit, Record, Store
from umbel.engine.question import Answer
from umbel.errors import Failure
from umbel.optimize.adam import AdamState

Reopen = Callable[[Store], Store]


def check_store(make: Callable[[], Store], *, reopen: Reopen | None = None) -> None:
    """Check a store of one's own; the store that a run uses then keeps its promises.

    Args:
        make: makes a new, empty store. It is called many times; the stores share nothing.
        reopen: gives the store that another process would find in the place of this one, which was killed and is not
            used any more. None: the store does not outlive its process.

    Raises:
        AssertionError: the store is wrong; says what it must do.
    """
    for check in (_check_new, _check_records, _check_commits, _check_twice, _check_opening, _check_values):
        check(make, reopen or _same)
    for seed in range(12):
        _check_story(make, reopen or _same, seed)


def _same(store: Store) -> Store:
    return store


# --- what is given to it -------------------------------------------------------------------------


def _record(number: int, value: float = 1.0) -> Record:
    answer = Answer(
        value=Arrays({"w": np.full(3, value)}),
        result="mean",
        metrics={"loss": value},
        clients=("a", "b"),
        cohort=3,
        failures=(_failure(number),),
    )
    return Record(round=number, call=1, digest={"the model": f"{number}"}, sequence=number, answer=answer)


def _failure(number: int) -> Failure:
    return Failure(client="c", round=number, kind="train", code="client-failed", message="it raised")


def _commit(number: int, **changes: Any) -> Commit:
    model = Arrays({"w": np.arange(4.0) * number, "n": np.array([number])})
    commit = Commit(
        rows=(Row(round=number, cohort=3, folded=2, failed=1, stages={"train": {"loss": 1 / number}}),),
        state={"model": model, "round": number},
        transforms={"chain": (number, model)},
        sequence=number,
        failures=(_failure(number),),
        counted={"a": 1, "b": number},
    )
    return replace(commit, **changes)


def _text(value: Any) -> str:
    """A text that is the same for the same values only."""
    return json.dumps(encode(value, lambda arrays: arrays.digest()))


def _require(promise: bool, words: str) -> None:
    if not promise:
        raise AssertionError(f"a store must {words}")


# --- checks --------------------------------------------------------------------------------------


def _check_new(make: Callable[[], Store], reopen: Reopen) -> None:
    store = reopen(make())
    _require(len(store.commits()) == 0 and len(store.records()) == 0, "be empty when it is new")


def _check_records(make: Callable[[], Store], reopen: Reopen) -> None:
    store = make()
    given = [_record(1), replace(_record(1, 2.0), call=2, sequence=2)]
    for record in given:
        store.record(record)
    _require(_text(list(reopen(store).records())) == _text(given), "give back the records, in their order")


def _check_commits(make: Callable[[], Store], reopen: Reopen) -> None:
    store = make()
    store.record(_record(1))
    given = [_commit(1, clients={"a": {"accuracy": 0.5}}), _commit(2, clients={"b": {"accuracy": 0.7}}), _commit(3)]
    for commit in given:
        store.commit(commit)
    store = reopen(store)
    _require(len(store.records()) == 0, "forget the records when their round commits")
    _require_commits(store.commits(), given)


def _require_commits(found: Sequence[Commit], given: Sequence[Commit]) -> None:
    _require(len(found) == len(given), f"give back each commit once: {len(given)} were made, {len(found)} are there")
    for number, (mine, its) in enumerate(zip(given, found, strict=True), 1):
        for name in ("rows", "sequence", "failures", "opening"):
            _require(
                _text(getattr(mine, name)) == _text(getattr(its, name)), f"keep the {name} of commit {number} as given"
            )
    counted, kept = (sum((Counter(c.counted) for c in commits), Counter[str]()) for commits in (given, found))
    _require(counted == kept, f"keep how often each client was counted, in all commits together: {dict(counted)}")
    for name in ("state", "transforms"):
        _require(_text(getattr(given[-1], name)) == _text(getattr(found[-1], name)), f"keep the last commit's {name}")
        rest = [getattr(commit, name) for commit in found[:-1]]
        _require(not any(rest), f"give back the {name} of the last commit only, lest memory grows with the rounds")
    evaluated = [commit for commit in given if commit.clients]
    if evaluated:
        last = next((c.clients for c in reversed(found) if c.clients), {})
        _require(_text(last) == _text(evaluated[-1].clients), "keep the clients' metrics of the last evaluation")


def _check_twice(make: Callable[[], Store], reopen: Reopen) -> None:
    store = make()
    given = [_commit(1), _commit(2)]
    for commit in (*given, given[-1]):
        store.commit(commit)
    _require_commits(reopen(store).commits(), given)


def _check_opening(make: Callable[[], Store], reopen: Reopen) -> None:
    store = make()
    given = [_commit(1, opening=(_record(1, 5.0),)), *(_commit(n) for n in range(2, 6))]
    for commit in given:
        store.commit(commit)
    _require_commits(reopen(store).commits(), given)


def _check_values(make: Callable[[], Store], reopen: Reopen) -> None:
    model = Arrays(
        {"half": np.ones((2, 3), np.float16), "bytes": b"\x00tree", "none": np.zeros((0, 2)), "flag": np.array([True])},
        roles={"half": "buffer"},
        aliases={"tied": "half"},
    )
    state = {
        "optimizer": AdamState(model, Arrays({"v": np.array([-0.0, 5e-324])})),
        "numbers": [1, 2**80, True, None, 0.1, math.inf, "ä\n\u2028"],
        "a tuple": (1, (), b"\xff"),
        "arrays": [np.arange(3, dtype=np.int8), np.zeros((2, 0)), np.arange(2000.0).reshape(2, 1000)],
        7: {("a", 1): "other keys"},
    }
    store = make()
    store.commit(_commit(1, state=state))
    _require_commits(reopen(store).commits(), [_commit(1, state=state)])


def _check_story(make: Callable[[], Store], reopen: Reopen, seed: int) -> None:
    """Rounds of records and commits as a run makes them, with a new process every now and then."""
    rng = np.random.default_rng(seed)
    store, commits, records = make(), list[Commit](), list[Record]()
    for sequence in range(1, 21):
        number = commits[-1].rows[-1].round + 1 if commits else 1
        if rng.random() < 0.5:
            records.append(replace(_record(number, rng.random()), call=len(records) + 1, sequence=sequence))
            store.record(records[-1])
        else:
            clients = {"a": {"accuracy": float(rng.random())}} if rng.random() < 0.4 else {}
            best = Arrays({"w": rng.random(4)}) if rng.random() < 0.4 else None
            commits.append(_commit(number, sequence=sequence, clients=clients, best=best))
            store.commit(commits[-1])
            records.clear()
        if rng.random() < 0.5:
            store = reopen(store)
        _require(_text(list(store.records())) == _text(records), "keep the records of the open round, and no others")
        if commits:
            _require_commits(store.commits(), commits)


__all__ = ["check_store"]

"""What came out of a run so far, as data for who has submitted it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from umbel.arrays import Arrays
from umbel.codec import Json, decode, encode
from umbel.engine.ports import Commit
from umbel.engine.question import EVALUATED, Answer
from umbel.engine.totals import Totals, totals_of
from umbel.store.sql import RunRow, RunStore, ServerStore

_PAGE = 3 << 18  # characters of rows on a page, as many of failures, and of clients; all is to fit into a message
_TRACE = 16 << 10  # characters of a failure's traceback: more than `umbel.client.failures.trace` gives


def pages_of(store: ServerStore, run: RunRow, *, models: bool) -> list[Json]:
    """A run's history, failures, clients and last state, in pages.

    Args:
        store: of the server.
        run: which.
        models: with the state and the models, as digests of blobs; else without them.

    Returns:
        JSON, as `umbel.codec` writes it: "rows", "failures" and "clients" on each page, and on the first "counted",
        "state" and "best".
    """
    with closing(RunStore(store, run.id)) as kept:
        written, records = kept.written()
        best = kept.best() if models else None
    commits = [_commit_of(fields, store) for fields in written]
    totals = totals_of(commits, best)
    if run.status == "finished":  # else a round is under way
        _add_behind(totals, records, store)
    failures = [replace(failure, traceback=failure.traceback[-_TRACE:]) for failure in totals.failures]
    first: dict[str, Any] = {
        "counted": dict(totals.counted),
        "best": best,
    }
    none: list[Json] = []
    rows = _packed(row for commit in commits for row in commit.rows)
    clients = _packed({name: metrics} for name, metrics in totals.clients.items())
    made: list[Json] = [
        {
            "rows": {"$tuple": some},
            "failures": {"$tuple": failed},
            "clients": {name: metrics for one in its for name, metrics in one.items()},
        }
        for some, failed, its in zip_longest(rows, _packed(failures), clients, fillvalue=none)
    ]
    made[0] |= encode(first, Arrays.digest)
    made[0]["state"] = written[-1]["state"] if written and models else None
    return made


def _packed(items: Iterable[Any]) -> list[list[Json]]:
    """The items as JSON, on each page as many as fit; a node may have made them as large as it could."""
    packed: list[list[Json]] = [[]]
    size = 0
    for item in items:
        data = encode(item, Arrays.digest)
        length = len(json.dumps(data))
        if packed[-1] and size + length > _PAGE:
            packed.append([])
            size = 0
        packed[-1].append(data)
        size += length
    return packed


def _add_behind(totals: Totals, records: Sequence[Mapping[str, Json]], store: ServerStore) -> None:
    """Take in what main has asked behind its last commit."""
    for record in records:
        answer: Answer = decode(record["answer"], store.blobs.fetch)
        totals.add_answer(answer, evaluation=answer.result == EVALUATED)


def _commit_of(fields: Mapping[str, Json], store: ServerStore) -> Commit:
    """A commit without what may be of classes that only the run's own process has."""
    plain = {**fields, "state": None, "transforms": {}}
    return Commit(**{name: decode(value, store.blobs.fetch) for name, value in plain.items()})


__all__ = ["pages_of"]

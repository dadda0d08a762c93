"""What came out of a run so far, as data for who has submitted it."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from umbel.arrays import Arrays
from umbel.codec import Json, encode
from umbel.engine.totals import totals_of
from umbel.store.sql import RunRow, RunStore, ServerStore


def result_of(store: ServerStore, run: RunRow, *, models: bool) -> Json:
    """A run's history, failures, clients and last state.

    Args:
        store: of the server.
        run: which.
        models: with the state and the models, as digests of blobs; else without them.

    Returns:
        JSON, as `umbel.codec` writes it: "rows", "failures", "counted", "clients", "state", "best", "initial".
    """
    with closing(RunStore(store, run.id)) as kept:
        commits = kept.commits()
        best = kept.best() if models else None
    totals = totals_of(commits, best)
    values: dict[str, Any] = {
        "rows": tuple(row for commit in commits for row in commit.rows),
        "failures": tuple(totals.failures),
        "counted": dict(totals.counted),
        "clients": dict(totals.clients),
        "best": best,
        "state": commits[-1].state if commits and models else None,
    }
    return encode(values, Arrays.digest)


__all__ = ["result_of"]

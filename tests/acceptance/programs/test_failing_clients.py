"""Clients that fail: spares take over, a quorum suffices, a round is skipped; and the run says who and why."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np
import pytest

import umbel

client = umbel.ClientApp()


@client.train
def train(model, ctx):
    if ctx.site.get("broken"):
        raise OSError("no such disk")
    ctx.state["trained"] = ctx.state.get("trained", 0) + 1
    return umbel.Update(delta={"w": np.ones(1)}, metrics={"trained": ctx.state["trained"]})


def run(policy, *, broken, cohort=None, rounds=5, clients=10):
    sites = {f"c{i}": {"broken": i in broken} for i in range(clients)}
    strategy = umbel.fed_avg(cohort=cohort, rounds=policy)
    server = umbel.ServerApp(model={"w": np.zeros(1)}, strategy=strategy, rounds=rounds)
    return umbel.run(server, client, on=umbel.Simulation(clients=sites), seed=1)


def test_a_quorum_suffices():
    result = run(umbel.rounds(quorum=0.7), broken={1, 2, 3})
    assert result.history["folded"].tolist() == [7] * 5
    assert result.history["failed"].tolist() == [3] * 5
    assert {f.client for f in result.failures} == {"c1", "c2", "c3"}
    assert result.failures[0].message == "its train handler raised OSError: no such disk"
    assert "no such disk" in result.failures[0].traceback
    assert (result.clients["c1"].failed, result.clients["c4"].counted) == (5, 5)
    assert result.model["w"][0] == 5.0


def test_spares_take_over():
    result = run(umbel.rounds(spare=3), broken={1, 2, 3}, cohort=umbel.sample.count(5))
    assert result.history["folded"].tolist() == [5] * 5
    assert result.history["failed"].sum() > 0


def test_a_missed_round_is_skipped():
    result = run(umbel.rounds(on_miss="skip"), broken={0}, cohort=umbel.sample.count(3), rounds=10)
    skipped = result.history["folded"] == 0
    assert 0 < skipped.sum() < 10
    assert result.model["w"][0] == (~skipped).sum()
    counted = sum(record.counted for record in result.clients.values())
    assert counted == 3 * (~skipped).sum()  # who trained in a skipped round was not counted


def test_a_missed_quorum_says_who_why_and_what_now():
    with pytest.raises(umbel.errors.QuorumMissed) as missed:
        run(umbel.rounds(quorum=0.8, on_miss="stop"), broken={1, 2, 3})
    text = str(missed.value)
    assert "1 of 10 clients answered before the quorum of 80% was out of reach" in text
    assert "client 'c1', train: its train handler raised OSError: no such disk" in text
    assert "What to do:" in text
    assert missed.value.retryable


def test_a_clients_state_changes_only_with_its_update():
    """A skipped round leaves no trace: who trains for the third time that counts says 3."""
    result = run(umbel.rounds(on_miss="skip"), broken={0}, cohort=umbel.sample.count(5), rounds=20)
    kept = result.history["trained"]
    assert kept[~np.isnan(kept)][0] == 1.0
    assert max(record.counted for record in result.clients.values()) < 20

from __future__ import annotations

import numpy as np
import pytest

import umbel
from umbel.codec import encode
from umbel.engine.history import Row
from umbel.errors import EmptyPopulation, Failure, FormatError, QuorumMissed, RunError, UmbelError, UsageError
from umbel.remote.outcome import Outcome, error_of, failure_of, row_of

FAILURE = Failure(client="lyon", round=1, kind="train", code="client-failed", message="it raised")
MODEL = umbel.Arrays({"w": np.arange(3.0)})


def test_an_outcome_is_the_result_of_a_simulation() -> None:
    values = {
        "rows": (Row(round=1, cohort=2, folded=1, failed=1, stages={"train": {"loss": 0.5}}),),
        "failures": (FAILURE,),
        "counted": {"berlin": 1},
        "clients": {"berlin": {"accuracy": 0.5}},
        "state": {"model": MODEL},
        "best": None,
    }
    data = encode(values, lambda arrays: arrays.digest())
    outcome = Outcome.read(data, {MODEL.digest(): MODEL}.__getitem__)
    result = outcome.result(status="finished", seed=1, name="run", seconds=2.0)
    assert result.model == MODEL
    assert result.history["loss"].tolist() == [0.5]
    assert result.clients["lyon"].failed == 1
    assert result.clients["berlin"].metrics == {"accuracy": 0.5}
    assert result.failures == (FAILURE,)
    assert result.timing == {"total": 2.0, "round": 2.0}


@pytest.mark.parametrize("form", [{"$class": "elsewhere:State", "fields": {}}, {}])
def test_of_a_state_of_classes_that_are_not_here_there_is_the_model(form: dict[str, object]) -> None:
    model = {"$arrays": MODEL.digest()}
    other = {"$class": "elsewhere:Optimizer", "fields": {}}
    state = {**form, "fields": {"model": model, "other": other}} if form else {"model": model, "other": other}
    assert Outcome.read({"state": state}, {MODEL.digest(): MODEL}.__getitem__).state == {"model": MODEL}
    assert Outcome.read({"state": other}, lambda _: MODEL).state is None


def test_a_run_that_has_committed_nothing_has_its_initial_model() -> None:
    result = Outcome().result(status="running", seed=1, name="run", seconds=0.0, initial=MODEL)
    assert (result.model, len(result.history), dict(result.clients)) == (MODEL, 0, {})


def test_what_is_no_outcome_is_refused() -> None:
    with pytest.raises(FormatError):
        Outcome.read({"rows": {"$class": "os:system", "fields": {}}}, lambda _: MODEL)


@pytest.mark.parametrize(
    ("what", "code", "kind"),
    [
        ("too few", "quorum-missed", QuorumMissed),
        ("round 1, train: 1 of 2 clients answered before 2 was out of reach.", "", QuorumMissed),
        ("round 1: there is no client to ask", "", EmptyPopulation),
        ("something", "", RunError),
        ("something", "usage", RunError),
        ("something", "no-such-code", RunError),
    ],
)
def test_an_error_is_of_the_class_that_a_simulation_raises(what: str, code: str, kind: type[UmbelError]) -> None:
    error = error_of(f"{what}\n  What to do: mend it", code, [FAILURE])
    assert type(error) is (UsageError if code == "usage" else kind)
    assert (error.what, error.advice) == (what, "mend it")
    if isinstance(error, RunError):
        assert error.failures == (FAILURE,)


def test_what_happened_may_quote_failures_with_their_advice() -> None:
    what = "round 1, train: 0 of 2 clients answered.\n  lyon: it returned nothing\n  What to do: return an Update"
    error = error_of(f"{what}\n  What to do: mend the clients", "quorum-missed", [FAILURE])
    assert (error.what, error.advice) == (what, "mend the clients")
    assert error_of("it broke", "", []).what == "it broke"


def test_events_may_leave_things_out() -> None:
    assert failure_of({"client": "lyon", "message": "it raised"}, 1) == FAILURE
    assert failure_of({"client": "lyon", "message": str(FAILURE)}, 7) == FAILURE
    row = row_of({"round": 2, "cohort": 3, "folded": 3, "failed": 0, "loss": 0.1})
    assert (row.round, row.cohort, row.stages) == (2, 3, {"": {"loss": 0.1}})

from __future__ import annotations

import inspect
import pickle

import pytest

import umbel
from umbel import errors
from umbel.errors import BadUpdate, Failure, QuorumMissed, RecipeChanged, UmbelError, UsageError

TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, UmbelError)]
FAILURE = Failure(client="a", round=3, kind="train", code="bad-update", message="weight is nan", traceback="...")


def test_the_drawing_at_the_top_is_the_tree() -> None:
    drawn = [line for line in (errors.__doc__ or "").splitlines() if line.startswith("    ")]
    names = {line.strip(" │├└─").split()[0] for line in drawn}
    assert names == {kind.__name__ for kind in TREE}
    assert names | {"Failure"} == set(errors.__all__)


def test_codes_are_unique_and_stable() -> None:
    codes = {kind.__name__: kind.code for kind in TREE}
    assert len(set(codes.values())) == len(codes)
    assert codes["QuorumMissed"] == "quorum-missed"
    assert {name for name, kind in zip(codes, TREE, strict=True) if kind.retryable} == {
        "QuorumMissed",
        "DiskFull",
        "InUse",
        "Unreachable",
    }


@pytest.mark.parametrize("kind", TREE)
def test_each_says_what_and_what_now(kind: type[UmbelError]) -> None:
    assert str(kind("x is 3")) == "x is 3"
    error = kind("x is 3", advice="give 4")
    assert str(error) == "x is 3\n  What to do: give 4"
    assert (error.what, error.advice) == ("x is 3", "give 4")
    assert len(str(kind())) > 10, "its docstring is its default message"
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # a worker process may raise it
    assert (type(again), str(again), again.advice) == (kind, str(error), "give 4")


def test_fields_come_along() -> None:
    error = BadUpdate("entry 'w' is missing", entry="w", advice="return it")
    assert pickle.loads(pickle.dumps(error)).entry == "w"  # noqa: S301
    missed = QuorumMissed("too few", failures=[FAILURE])
    assert pickle.loads(pickle.dumps(missed)).failures == (FAILURE,)  # noqa: S301
    assert RecipeChanged("other", differences=["seed: 1 before, 2 now"]).differences == ("seed: 1 before, 2 now",)


def test_a_usage_error_is_a_value_error_too() -> None:
    with pytest.raises(ValueError, match="quorum is 3"):
        umbel.rounds(quorum=3)
    assert issubclass(UsageError, ValueError)
    assert umbel.UmbelError is UmbelError


def test_a_failure_is_one_line_for_people() -> None:
    assert str(FAILURE) == "round 3, client 'a', train: weight is nan"
    assert "..." not in repr(FAILURE)

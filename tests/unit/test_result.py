from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from umbel.engine.history import History, Row
from umbel.errors import FormatError, StoreError, UsageError
from umbel.result import PANELS, Result, as_model


def result(*stages: dict[str, dict[str, Any]]) -> Result:
    return Result(
        model=None,
        best=None,
        history=History([Row(round=i, stages=s) for i, s in enumerate(stages, 1)]),
        clients={},
        failures=(),
        privacy=None,
        timing={},
        dir=None,
        status="finished",
        state=None,
        seed=1,
        name="run",
    )


def lines(figure: Any) -> dict[str, list[list[tuple[float, float]]]]:
    """Of each panel, the points of each line."""
    return {
        axes.get_title(): [[(float(x), float(y)) for x, y in line.get_xydata()] for line in axes.get_lines()]
        for axes in figure.axes
    }


NAN = float("nan")


def test_each_metric_that_is_a_number_has_a_panel() -> None:
    pytest.importorskip("matplotlib")
    made = result({"train": {"loss": 2.0}, "evaluate": {"loss": 3.0}}, {"train": {"loss": 1.0, "m": np.ones(2)}})
    assert lines(made.plot()) == {"loss": [[(1, 2.0), (2, 1.0)]], "evaluate.loss": [[(1, 3.0)]]}


def test_rounds_without_a_value_are_left_out() -> None:
    pytest.importorskip("matplotlib")
    made = result({"": {"a": 1.0}}, {"": {"a": NAN}}, {}, {"": {"a": 4.0}})
    assert lines(made.plot("a")) == {"a": [[(1, 1.0), (4, 4.0)]]}
    assert lines(result({"": {"a": NAN}}).plot("a")) == {"a": [[]]}


def test_each_element_of_an_array_is_a_line() -> None:
    pytest.importorskip("matplotlib")
    made = result({"": {"recall": [0.1, 0.2]}}, {}, {"": {"recall": [0.3, NAN]}})
    assert lines(made.plot("recall")) == {"recall": [[(1, 0.1), (3, 0.3)], [(1, 0.2)]]}
    matrix = result({"": {"m": np.eye(3)}})
    assert len(lines(matrix.plot("m"))["m"]) == 9


def test_counts_can_be_drawn_when_asked_for() -> None:
    pytest.importorskip("matplotlib")
    assert lines(result({"": {"a": 1.0}}, {}).plot("folded", "a")) == {"folded": [[(1, 0), (2, 0)]], "a": [[(1, 1.0)]]}


def test_many_panels_begin_a_new_line() -> None:
    pytest.importorskip("matplotlib")
    figure = result({"": {f"m{i}": 1.0 for i in range(PANELS + 1)}}).plot()
    assert len(figure.axes) == PANELS + 1
    assert figure.get_size_inches()[1] > result({"": {"m": 1.0}}).plot().get_size_inches()[1]


@pytest.mark.parametrize(
    ("made", "asked", "says"),
    [
        (result(), (), "no metrics to draw"),
        (result(), ("folded",), "no metrics to draw"),
        (result({}), (), "no metrics to draw"),
        (result({"": {"m": np.ones(2)}}), (), "no metrics to draw"),
        (result({"": {"m": 1.0}}), ("x",), "no column 'x'"),
        (result({"": {"m": 1.0}}), (["m"],), r"a column is called \['m'\]\n.*plot\("),
        (result({"": {"note": "text"}}), ("note",), "column 'note' is not made of numbers"),
        (result({"": {"m": np.ones(2)}}, {"": {"m": np.ones(3)}}), ("m",), "column 'm' is not made of numbers"),
    ],
)
def test_what_cannot_be_drawn(made: Result, asked: tuple[str, ...], says: str) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(UsageError, match=says):
        made.plot(*asked)


def test_text_beside_numbers_is_passed_over() -> None:
    pytest.importorskip("matplotlib")
    made = result({"": {"note": "warm-up", "a": 1.0}}, {"": {"a": 2.0}})
    assert set(lines(made.plot())) == {"a"}


def test_a_result_says_what_it_is() -> None:
    text = repr(result({"train": {"loss": 0.5}}))
    assert text == (
        "Result(finished after 1 rounds, seed=1; "
        "History(1 rounds; last: round=1, cohort=0, folded=0, failed=0, loss=0.5))"
    )


def test_a_model_comes_as_arrays_a_mapping_or_a_file(tmp_path: Path) -> None:
    model = umbel.Arrays({"w": np.ones(2)})
    model.save(tmp_path / "m.safetensors")
    for given in (model, {"w": np.ones(2)}, tmp_path / "m.safetensors", str(tmp_path / "m.safetensors")):
        assert as_model(given) == model
    (tmp_path / "bad").write_bytes(b"no model at all")
    with pytest.raises(FormatError, match="bad is not a safetensors file"):
        as_model(tmp_path / "bad")
    with pytest.raises(StoreError, match=r"missing.*cannot be read: No such file(?s:.*)check the path"):
        as_model(tmp_path / "missing")
    with pytest.raises(StoreError, match="cannot be read"):
        as_model(tmp_path)
    for wrong in (3, None, [1.0]):
        with pytest.raises(UsageError, match="a model is"):
            as_model(wrong)

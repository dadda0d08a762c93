"""Trackers: callbacks that see the result so far after each round."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import csv
import importlib.util
import logging
from pathlib import Path

import numpy as np
import pytest

import umbel

EXAMPLE = Path(__file__).parents[3] / "examples" / "tensorboard_callback.py"
client = umbel.ClientApp()


@client.train
def train(model, ctx):
    return umbel.Update(delta={"w": np.ones(1)}, metrics={"loss": 1 / ctx.round})


server = umbel.ServerApp(model={"w": np.zeros(1)}, strategy=umbel.fed_avg(), rounds=4)
federation = umbel.Simulation(clients=3)


def test_tensorboard_shows_what_the_history_has(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    spec = importlib.util.spec_from_file_location("tensorboard_callback", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    result = example.main(tmp_path)
    written = EventAccumulator(str(tmp_path)).Reload()
    (tag,) = (tag for tag in written.Tags()["tensors"] if tag == "loss")
    shown = [
        (
            e.step,
            float(np.frombuffer(e.tensor_proto.tensor_content or b"", np.float32)[0])
            if e.tensor_proto.tensor_content
            else e.tensor_proto.float_val[0],
        )
        for e in written.Tensors(tag)
    ]
    assert [step for step, _ in shown] == list(range(1, 11))
    assert [value for _, value in shown] == pytest.approx(result.history["loss"].tolist())


def test_a_function_that_appends_to_a_file(tmp_path):
    path = tmp_path / "rounds.csv"

    def write(result):
        row = result.history[-1]
        with path.open("a", newline="") as file:
            csv.writer(file).writerow([row["round"], row["loss"], result.model["w"][0], result.status])

    umbel.run(server, client, on=federation, callbacks=[write])
    rows = [line.split(",") for line in path.read_text().split()]
    assert rows == [[str(r), str(1 / r), str(float(r)), "running"] for r in range(1, 5)]


def test_a_callback_that_raises_is_reported_and_the_run_goes_on(caplog):
    seen = []

    def broken(result):
        raise ConnectionError("no tracker there")

    with caplog.at_level(logging.ERROR, logger="umbel"):
        result = umbel.run(server, client, on=federation, callbacks=[broken, lambda r: seen.append(len(r.history))])
    assert result.status == "finished"
    assert seen == [1, 2, 3, 4]  # the others are called all the same
    assert [(f.client, f.kind, f.round) for f in result.failures] == [("broken", "callback", r) for r in range(1, 5)]
    assert "no tracker there" in result.failures[0].message
    assert "no tracker there" in caplog.text
    assert result.history["failed"].sum() == 0  # no client failed

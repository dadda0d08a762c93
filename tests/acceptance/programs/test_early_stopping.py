"""A run that ends when it no longer improves, and gives the best model and not the last one."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np
import pytest

import umbel

client = umbel.ClientApp()


@client.train
def train(model, ctx):
    return umbel.Update(delta={"w": np.ones(1)})


@client.evaluate
def evaluate(model, ctx):
    """Best at 6, then worse and worse."""
    return umbel.Metrics({"loss": abs(model["w"][0] - 6)})


server = umbel.ServerApp(model={"w": np.zeros(1)}, strategy=umbel.fed_avg(), rounds=50)


def test_it_stops_and_keeps_the_best():
    callbacks = [umbel.EarlyStopping("loss", patience=3), umbel.Checkpoint(best_on="loss")]
    result = umbel.run(server, client, on=umbel.Simulation(clients=3), callbacks=callbacks)
    assert len(result.history) == 9
    assert result.status == "stopped early: loss has not improved for 3 rounds"
    assert (result.best["w"][0], result.model["w"][0]) == (6.0, 9.0)


def test_a_misspelt_metric_is_told(caplog):
    callbacks = [umbel.EarlyStopping("los", patience=3), umbel.Checkpoint(best_on="acuracy")]
    result = umbel.run(server, client, on=umbel.Simulation(clients=3), rounds=5, callbacks=callbacks)
    assert (len(result.history), result.best) == (5, None)
    for name in ("los", "acuracy"):
        assert f"no round has a metric '{name}'; there are round, cohort, folded, failed, loss" in caplog.text


def test_a_callback_is_an_object():
    class Tracker:
        def on_round(self, result):
            self.seen = result

    with pytest.raises(umbel.UmbelError, match=r"is (a class|the class Tracker)"):
        umbel.run(server, client, on=umbel.Simulation(clients=3), callbacks=[Tracker])
    with pytest.raises(umbel.UmbelError, match=r"callbacks (is|are) a EarlyStopping(?s:.*)list"):
        umbel.run(server, client, on=umbel.Simulation(clients=3), callbacks=umbel.EarlyStopping("loss"))


def test_a_rule_of_ones_own():
    def enough(result):
        return "good enough" if result.history[-1]["loss"] < 3 else None

    result = umbel.run(server, client, on=umbel.Simulation(clients=3), callbacks=[enough])
    assert (len(result.history), result.status) == (4, "stopped early: good enough")


def test_a_stopped_run_stays_stopped_and_can_go_on(tmp_path):
    stop = [umbel.EarlyStopping("loss", patience=3)]
    on = umbel.Simulation(clients=3)
    umbel.run(server, client, on=on, seed=1, dir=tmp_path, callbacks=stop)
    again = umbel.run(server, client, on=on, seed=1, dir=tmp_path, callbacks=stop)
    assert len(again.history) == 9
    assert again.status.startswith("stopped early")

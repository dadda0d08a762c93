from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from umbel.errors import UsageError
from umbel.simulation.loading import loading
from umbel.simulation.messages import Broken
from umbel.simulation.shipping import unpack_app

SERVER = umbel.ServerApp({"w": np.zeros(1)}, umbel.fed_avg(), rounds=1)
CLIENT = umbel.ClientApp()


@CLIENT.train
def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
    return umbel.Update(model=model)


@CLIENT.evaluate
def evaluate(model: umbel.Arrays, ctx: Any) -> umbel.Metrics:
    return umbel.Metrics({"x": 1.0})


@pytest.mark.parametrize("engine", ["auto", "inline", "processes"])
def test_nothing_runs_while_something_is_loaded(engine: umbel.simulation.simulation.Engine) -> None:
    on = umbel.Simulation(1, engine=engine)
    with loading():
        with pytest.raises(UsageError, match="the module itself begins a run") as raised:
            umbel.run(SERVER, CLIENT, on=on, seed=1)
        with pytest.raises(UsageError, match="the module itself begins a run"):
            umbel.evaluate({"w": np.zeros(1)}, CLIENT, on=on)
    assert "under if __name__ == '__main__':" in raised.value.advice


def test_afterwards_it_runs_even_if_that_failed() -> None:
    with pytest.raises(pickle.UnpicklingError):
        unpack_app(b"what is this?")
    result = umbel.run(SERVER, CLIENT, on=umbel.Simulation(1, engine="inline"), seed=1)
    assert result.history["folded"].tolist() == [1]


def test_a_module_that_runs_while_an_app_of_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import umbel\n"
        "client = umbel.ClientApp()\n"
        "client.train(train := lambda model, ctx: umbel.Update(model=model))\n"
        "umbel.run(umbel.ServerApp({}, umbel.fed_avg(), 1), client, on=umbel.Simulation(1, engine='inline'))\n"
    )
    code = "from umbel.simulation.shipping import unpack_app; unpack_app(b'cprogram\\nclient\\n.')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert 'program.py", line 4, in <module>' in done.stderr
    assert "What to do: put the call of umbel.run under" in done.stderr


def test_what_is_broken_keeps_the_advice() -> None:
    try:
        raise UsageError("so it is", advice="do this")
    except UsageError as error:
        broken = Broken.by(error)
    assert (broken.what, broken.advice) == ("UsageError: so it is", "do this")
    assert "raise UsageError" in broken.traceback
    assert Broken.by(KeyError("x")).what == "KeyError: 'x'"

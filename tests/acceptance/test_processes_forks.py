"""A fork of the main process goes on with the model that it was made with, whatever later rounds write where it lay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.processes import PATIENCE

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks, which this system has not")

# After each round the model is forgotten, and looked at only by a fork, which waits until the run is over.
PROGRAM = """
import os
import numpy as np
import umbel

client = umbel.ClientApp()

@client.train
def train(model, ctx):
    return umbel.Update(model=model + np.float32(1 + ctx.rng.random()))

server, forks = umbel.ServerApp({"w": np.zeros(1_000_000, np.float32)}, rounds=6), []
end_of_run, wait = os.pipe()

@server.main
def main(fed):
    model = fed.initial
    for r in fed.rounds():
        got = fed.train(model, cohort=umbel.sample.everyone())
        model = model + got.mean
        if r in (2, 3):
            forks.append(evaluate(model))
        fed.commit({"r": r})

def evaluate(model):
    answer, say = os.pipe()
    expected = model["w"].tobytes()
    if not os.fork():
        os.close(wait)
        os.read(end_of_run, 1)
        os.write(say, b"same" if model["w"].tobytes() == expected else b"other")
        os._exit(0)
    os.close(say)
    return answer

umbel.run(server, client, on=umbel.Simulation(2, engine="processes", workers=2), seed=1)
os.close(wait)
print([os.read(answer, 9).decode() for answer in forks])
"""


def test_it_sees_the_model_as_it_was(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run([sys.executable, str(program)], check=False, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['same', 'same']"

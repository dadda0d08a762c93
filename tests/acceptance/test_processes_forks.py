"""Forks of the main process and of workers, and threads in workers: whatever they do, models and updates are right.

A fork of the main process goes on with the model that it was made with, whatever later rounds write where it lay.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from tests.acceptance.processes import PATIENCE

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks, which this system has not")
SIZE = 300_000  # elements: so large that a worker waits for memory that they will lie in

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


@forks
def test_it_sees_the_model_as_it_was(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run([sys.executable, str(program)], check=False, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['same', 'same']"


def train_with(handler: Callable[[Any], umbel.Arrays]) -> list[float]:
    """All the values in the model after two rounds, in which every update is what the handler makes."""
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        return umbel.Update(model=handler(ctx))

    server = umbel.ServerApp({"w": np.zeros(SIZE)}, umbel.fed_avg(), rounds=2)
    result = umbel.run(server, client, on=umbel.Simulation(6, engine="processes", workers=2), seed=1)
    assert not result.failures
    assert result.model is not None
    values: list[float] = np.unique(result.model["w"]).tolist()
    return values


def full(value: float) -> umbel.Arrays:
    return umbel.Arrays({"w": np.full(SIZE, value)})


@forks
def test_what_a_fork_of_a_worker_makes_is_its_own() -> None:
    def handler(ctx: Any) -> umbel.Arrays:
        fork = os.fork()
        if not fork:
            kept = [full(777.0) for _ in range(3)]
            os._exit(len(kept) - 3)
        mine = full(1.0)
        assert os.waitpid(fork, 0)[1] == 0
        return mine

    assert train_with(handler) == [1.0]


@forks
@pytest.mark.parametrize("raises", [False, True])
def test_a_fork_that_comes_back_from_a_handler_does_not_go_on_as_a_worker(*, raises: bool) -> None:
    def handler(ctx: Any) -> umbel.Arrays:
        fork = os.fork()
        if fork:
            os.waitpid(fork, 0)
        elif raises:
            sys.exit("the fork is done")
        return full(1.0 if fork else 777.0)

    assert train_with(handler) == [1.0]


@forks
def test_nor_does_one_from_a_handler_of_a_tiny_model() -> None:
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        if ctx.client.name == "7" and (fork := os.fork()):
            os.waitpid(fork, 0)
        return umbel.Update(model=model + 1)

    server = umbel.ServerApp({"w": np.zeros(3)}, umbel.fed_avg(), rounds=3)
    result = umbel.run(server, client, on=umbel.Simulation(100, engine="processes", workers=2), seed=1)
    assert not result.failures
    assert result.model is not None
    assert result.model["w"].tolist() == [3.0] * 3


def test_threads_of_a_handler_make_large_arrays_of_their_own() -> None:
    def handler(ctx: Any) -> umbel.Arrays:
        with ThreadPoolExecutor(4) as pool:
            made = [*pool.map(full, map(float, range(16)))]
        assert [np.unique(arrays["w"]).tolist() for arrays in made] == [[i] for i in range(16)]
        return made[3]

    assert train_with(handler) == [3.0]


def test_threads_go_on_making_them_when_the_handler_has_returned() -> None:
    def handler(ctx: Any) -> umbel.Arrays:
        def go_on() -> None:
            while True:
                full(777.0)
                made.set()

        mine, made = full(1.0), threading.Event()
        threading.Thread(target=go_on, daemon=True).start()
        made.wait()
        return mine

    assert train_with(handler) == [1.0]

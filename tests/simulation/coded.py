"""An app with code that runs at the server, as a package on the disk."""

from __future__ import annotations

from pathlib import Path

APP = '''
import os
import random
import signal
import threading
from dataclasses import dataclass

import numpy as np

import umbel
from umbel.aggregate import Aggregator
from umbel.optimize import adam
from umbel.sample import Sampler

SIZE = 20_000  # a model of more than 64 KiB, which goes from process to process as a file
client = umbel.ClientApp()


@client.train
def train(model, ctx):
    ctx.state["times"] = ctx.state.get("times", 0) + 1
    noise = ctx.rng.normal(size=model["w"].shape) / ctx.state["times"]
    n = ctx.site["n"]
    return umbel.Update(model={"w": model["w"] + n + noise}, weight=n, metrics={"n": n})


@client.evaluate
def evaluate(model, ctx):
    if ctx.client.name == ctx.config.get("fails"):
        raise ArithmeticError("it cannot be computed")
    return umbel.Metrics({"mean": float(np.mean(model["w"]))}, weight=ctx.site["n"])


@dataclass(frozen=True)
class Memory:
    model: umbel.Arrays
    optimizer: object
    drawn: float


def small():
    return umbel.ServerApp(model={"w": np.zeros(3)}, rounds=4)


def follow(fed, optimizer=adam(lr=0.2)):
    memory = fed.state or Memory(fed.initial, optimizer.init(fed.initial), 0.0)
    for r in fed.rounds(4):
        got = fed.train(memory.model, cohort=umbel.sample.fraction(0.7), aggregator=umbel.aggregate.mean())
        model, state = optimizer.step(memory.model, got.mean, memory.optimizer)
        memory = Memory(model, state, random.random() + np.random.random())
        print("round", r, "is done")
        fed.commit(memory, metrics={**got.metrics, "drawn": memory.drawn})


looped = small()
looped.main(follow)


@looped.evaluate(every=2)
def check(model, ctx):
    return umbel.Metrics({"check": float(model["w"].sum()) + ctx.rng.normal() + random.random()})


large = umbel.ServerApp(model={"w": np.zeros(SIZE)}, rounds=3)
large.main(follow)


@dataclass(frozen=True)
class Halved(Aggregator):
    """Half of the mean."""

    result = "mean"
    of: Aggregator = umbel.aggregate.mean()

    def expects(self, sent):
        return self.of.expects(sent)

    def init(self, sent):
        return self.of.init(sent)

    def fold(self, acc, update, sent):
        return self.of.fold(acc, update, sent)

    def merge(self, acc, later):
        return self.of.merge(acc, later)

    def finish(self, acc):
        found = self.of.finish(acc)
        return found if found is None else 0.5 * found


strategy = umbel.fed_adam(lr=0.1, aggregator=Halved(), rounds=umbel.rounds(min_nodes=3))
evaluated = umbel.ServerApp(model={"w": np.zeros(SIZE)}, strategy=strategy, rounds=4)


@evaluated.evaluate(every=2)
def central(model, ctx):
    if ctx.round == 4:
        raise ArithmeticError("it cannot be computed")
    return umbel.Metrics({"central": float(np.abs(model["w"]).max())})


crowd = small()


@crowd.main
def wait_in_vain(fed):
    try:
        everyone, policy = umbel.sample.everyone(), umbel.rounds(min_nodes=9, wait=0.01)
        fed.train(fed.initial, cohort=everyone, aggregator=umbel.aggregate.mean(), policy=policy)
    except umbel.errors.EmptyPopulation as few:
        print(few.what)
        raise


behind = small()


@behind.main
def main(fed):
    for r in fed.rounds(4):
        got = fed.train(fed.initial, cohort=umbel.sample.everyone())
        fed.commit({"model": fed.initial + got.mean})
    fed.evaluate(fed.state["model"], cohort=umbel.sample.everyone(), config={"fails": "lyon"})


raises, segfaults, exits, endless, asleep, floods, asks, forks = (small() for _ in range(8))


@raises.main
def main(fed):
    for r in fed.rounds(4):
        got = fed.train(fed.initial, cohort=umbel.sample.everyone())
        fed.commit({"model": fed.initial})
        if r == 2:
            1 / 0


@segfaults.main
def main(fed):
    for r in fed.rounds(4):
        fed.commit({"model": fed.initial})
        if r == 2 and not os.path.exists(PATH):
            open(PATH, "w").close()
            print("about to die")
            os.kill(os.getpid(), signal.SIGSEGV)


@exits.main
def main(fed):
    os._exit(7)


@forks.main
def main(fed):
    if not os.fork():
        threading.Event().wait()  # it has the connection open, too
    os._exit(7)


@endless.main
def main(fed):
    for r in fed.rounds(4):
        fed.commit({"model": fed.initial})
        print("turns and turns")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("heard it")
            raise


@asleep.main
def main(fed):
    while True:
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("does not care")


@floods.main
def main(fed):
    for n in range(20_000):
        print("line", n)
    for r in fed.rounds(1):
        fed.commit({"model": fed.initial})


@asks.main
def main(fed):
    for r in fed.rounds(1):
        fed.train(fed.initial, cohort="everyone")
'''


def write_app(root: Path, name: str) -> Path:
    """Write the app; gives the directory that holds its package."""
    package = root / name
    package.mkdir(parents=True)
    path = str(root / "died")
    (package / "__init__.py").write_text("")
    (package / "app.py").write_text(f"PATH = {path!r}\n{APP}")
    return root


__all__ = ["write_app"]

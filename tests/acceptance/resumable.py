"""A program that is killed and started again until it ends; run by test_resume.py and test_bad_disk.py.

python resumable.py SPEC    SPEC is JSON: {"program": "strategy", "dir": "...", "deaths": [["line", 100]], ...}

With "workers" in it clients work in so many processes, which end with the one that dies.

Each death kills one process with SIGKILL (or interrupts it), at a moment that it names:

    ["line", k]            when the k-th line of Umbel's durable parts, or of this program, is about to run
    ["ctrl-c", k]          as "line", but by a KeyboardInterrupt, and in the main thread only
    ["write", k, part]     in the k-th os.write, after that part of its bytes
    [NAME, k]              before the k-th call of os.NAME
    ["sql", k]             before the k-th statement to SQLite
    ["outside", k]         from outside, some time after the k-th task or callback began
    ["power", k, seed]     as "line"; and the disk forgets what was not synchronised, as far as the seed has it

Processes are forks of this one, so that a start costs milliseconds. The last process prints what came out as JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np

import umbel
from umbel.codec import encode
from umbel.digest import digest_of
from umbel.store.files import FileStore
from umbel.store.journal import read_lines

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.acceptance.power_loss import Synchronised  # found by the line above: this file runs as a program

NAMES = [f"clinic-{i}" for i in range(7)]
SEED = 11
LISTENERS: list[Callable[[], object]] = []


def began() -> None:
    """A task or a callback begins."""
    for listener in LISTENERS:
        listener()


def make_client() -> umbel.ClientApp:
    """Clients that train, remember, fail now and then, and answer questions."""
    client = umbel.ClientApp()

    @client.data
    def load(ctx: Any) -> Any:
        x = ctx.rng.normal(size=(20, 3))
        return x, x @ np.array([1.0, -2.0, 0.5]) + ctx.rng.normal(size=20)

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        began()
        x, y = ctx.data
        if ctx.rng.random() < 0.25:
            raise ConnectionError("the disk array is away")
        ctx.state["trained"] = ctx.state.get("trained", 0) + 1
        ctx.state["path"] = np.append(ctx.state.get("path", np.zeros(0)), ctx.rng.random())[-600:]
        w = model["w"] - ctx.config["lr"] * x.T @ (x @ model["w"] - y) / len(x)
        noise = np.random.normal(scale=1e-3, size=3)  # the generator that Umbel seeds
        loss = float(((x @ w - y) ** 2).mean())
        return umbel.Update(model={"w": w + noise}, weight=len(x), metrics={"loss": loss})

    @client.query("residuals")
    def residuals(model: Any, ctx: Any) -> umbel.Update:
        began()
        ctx.state["asked"] = ctx.state.get("asked", 0) + 1
        x, y = ctx.data
        return umbel.Update(value={"sum": (x @ model["w"] - y).sum(), "many": np.ones(700) * ctx.rng.random()})

    @client.evaluate
    def evaluate(model: Any, ctx: Any) -> umbel.Metrics:
        began()
        x, y = ctx.data
        return umbel.Metrics({"mse": ((x @ model["w"] - y) ** 2).mean()}, weight=len(x))

    return client


POLICY = umbel.rounds(quorum=0.7, retries=20)


def strategy_server(rounds: int) -> umbel.ServerApp:
    """FedAdam with a schedule, evaluated every second round."""
    strategy = umbel.fed_adam(
        lr=0.05,
        cohort=umbel.sample.fraction(0.6),
        config={"lr": umbel.schedule.cosine(0.1, rounds=12)},
        evaluate=umbel.evaluation(every=2),
        rounds=POLICY,
    )
    server = umbel.ServerApp(model={"w": np.zeros(3)}, strategy=strategy, rounds=rounds)

    @server.evaluate(every=5)
    def central(model: Any, ctx: Any) -> umbel.Metrics:
        return umbel.Metrics({"norm": float(np.abs(model["w"]).sum())})

    return server


def main_server(rounds: int) -> umbel.ServerApp:
    """A main with a question before its rounds and several in each, and draws from the global generator."""
    server = umbel.ServerApp(model=lambda: {"w": np.random.normal(size=3)}, rounds=rounds)
    adam = umbel.optimize.adam(lr=0.05)
    everyone = umbel.sample.everyone()

    @server.main
    def main(fed: Any) -> None:
        first = fed.query("residuals", fed.initial, cohort=everyone, aggregator=umbel.aggregate.sum(), policy=POLICY)
        start = {"model": fed.initial, "opt": adam.init(fed.initial), "seen": ((), b"", np.zeros(1000))}
        s = fed.state or start
        groups = fed.rng("groups").random()
        for r in fed.rounds(rounds):
            lr = 0.05 + 0.05 * np.random.random() + 0.01 * groups
            got = fed.train(s["model"], cohort=umbel.sample.count(4), config={"lr": lr}, policy=POLICY)
            s["model"], s["opt"] = adam.step(s["model"], got.mean, s["opt"])
            asked = fed.query(
                "residuals", s["model"], cohort=umbel.sample.fraction(0.5), aggregator=umbel.aggregate.sum()
            )
            seen, _, many = s["seen"]
            many[r % 1000] += np.random.random()
            s["seen"] = ((*seen, asked.sum["sum"].item()), b"\x00" * r, many + first.sum["many"][0])
            told = fed.evaluate(s["model"], cohort=umbel.sample.count(3))
            fed.commit(s, train=got.metrics, evaluate=told.metrics)

    return server


SERVERS = {"strategy": strategy_server, "main": main_server}


def run(spec: dict[str, Any]) -> umbel.Result:
    """One call of `umbel.run`."""
    callbacks: list[Any] = [umbel.Checkpoint(every=spec.get("every", 1), best_on="loss")]
    if "stop" in spec:  # a rule of one's own, which a resumed run must ask again
        callbacks.append(lambda result: "enough" if len(result.history) >= spec["stop"] else None)
    if "patience" in spec:
        callbacks.append(umbel.EarlyStopping("loss", patience=spec["patience"]))
    callbacks.append(lambda _: began())
    workers = spec.get("workers")
    engine: Any = {"engine": "processes", "workers": workers} if workers else {"engine": "inline"}
    return umbel.run(
        SERVERS[spec["program"]](spec["rounds"]),
        make_client(),
        on=umbel.Simulation(clients=NAMES, **engine),
        seed=SEED,
        dir=spec["dir"],
        callbacks=callbacks,
    )


def outcome(result: umbel.Result) -> dict[str, Any]:
    """All that must be the same bits."""
    found = {
        "model": result.model.digest() if result.model is not None else None,
        "best": result.best.digest() if result.best is not None else None,
        "state": encode(result.state, lambda arrays: arrays.digest()),
        "history": [dict(row) for row in result.history],
        "clients": {name: [c.counted, c.failed, dict(c.metrics)] for name, c in result.clients.items()},
        "failures": [[f.client, f.round, f.kind, f.code] for f in result.failures],
        "status": result.status,
    }
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]  # it was a dict


def on_disk(directory: str) -> dict[str, Any]:
    """What the directory holds: the states of clients, the files, the digests of the models, and stray blobs."""
    store = FileStore(directory)
    states = {name: encode(dict(store.client_states.read(name)), lambda a: a.digest()) for name in NAMES}
    store.close()
    root = Path(directory)
    models = {p.name: digest_of(p.read_bytes()).hex() for p in root.glob("*.safetensors")}
    commits = [line.value for line in read_lines(root / "journal", precious=True)][-3:-1]  # the last line is the end
    named = {f"{d}.safetensors" for c in commits for d in (*c["blobs"], *c["opening"], c["best"])}
    strays = sorted({p.name for p in (root / "blobs").iterdir()} ^ named)
    return {"states": states, "files": sorted(p.name for p in root.iterdir()), "models": models, "strays": strays}


# --- deaths ----------------------------------------------------------------------------------------


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def interrupt() -> NoReturn:
    raise KeyboardInterrupt


class Countdown:
    """Dies at the n-th call; counts them all."""

    def __init__(self, n: float, end: Callable[[], NoReturn] = die) -> None:
        self.n, self.end, self.count = n, end, 0

    def __call__(self) -> None:
        self.count += 1
        if self.count == self.n:
            self.end()


WATCHED = ("umbel/store/", "umbel/engine/", "umbel/session.py", "umbel/simulation/", "umbel/recipe.py", __file__)


def at_line(n: float, end: Callable[[], NoReturn] = die) -> Countdown:
    """Die at the n-th line."""
    countdown = Countdown(n, end)

    def on_line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            countdown()
        return on_line

    def on_call(frame: FrameType, event: str, _: Any) -> Any:
        return on_line if any(part in frame.f_code.co_filename for part in WATCHED) else None

    sys.settrace(on_call)
    if end is die:  # Ctrl-C comes to the main thread only
        threading.settrace(on_call)
    return countdown


def in_write(n: float, part: float) -> Countdown:
    """Die in the n-th write, when some of its bytes are written."""
    real, countdown = os.write, Countdown(n)

    def write(file: int, data: Any) -> int:
        if countdown.count + 1 >= countdown.n:
            real(file, memoryview(data)[: int(len(data) * part)])
        countdown()
        return real(file, data)

    os.write = write
    return countdown


def before_call(name: str, n: float) -> Countdown:
    """Die before the n-th call of a function of the system."""
    real, countdown = getattr(os, name), Countdown(n)

    def call(*args: Any, **kwargs: Any) -> Any:
        countdown()
        return real(*args, **kwargs)

    setattr(os, name, call)
    return countdown


def at_statement(n: float) -> Countdown:
    """Die before the n-th statement to SQLite."""
    real, countdown = sqlite3.connect, Countdown(n)

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = real(*args, **kwargs)
        connection.set_trace_callback(lambda _: countdown())
        return connection

    sqlite3.connect = connect  # type: ignore[assignment]  # overloads
    return countdown


def prepare(death: list[Any]) -> Countdown | None:
    """Set the trap."""
    match death:
        case ["line", n]:
            return at_line(n)
        case ["write", n, part]:
            return in_write(n, part)
        case ["power", n, _]:
            return at_line(n)
        case ["ctrl-c", n]:
            return at_line(n, interrupt)
        case ["sql", n]:
            return at_statement(n)
        case [str(name), n]:
            return before_call(name, n)
    return None


def child(spec: dict[str, Any], death: list[Any] | None, out: int, beats: int) -> NoReturn:
    """One process: it dies as it is told, or prints what came out."""
    code = 1
    try:
        countdown = None
        if any(each[0] == "power" for each in spec.get("deaths", [])):
            Synchronised(spec["dir"]).watch()
        if death is not None and death[0] == "outside":
            main = os.getpid()
            LISTENERS.append(lambda: os.getpid() == main and os.write(beats, b"."))
        elif death is not None:
            countdown = prepare(death)
        result = run(spec)
        sys.settrace(None)
        counts = {"count": countdown.count} if countdown is not None else {}
        with os.fdopen(out, "w") as pipe:
            json.dump(outcome(result) | counts, pipe)
        code = 0
    except KeyboardInterrupt:
        os.kill(os.getpid(), signal.SIGKILL)  # nothing of Umbel's is still running
    except BaseException as error:  # noqa: BLE001  # a process ends here
        with os.fdopen(out, "w") as pipe:
            json.dump({"error": f"{type(error).__name__}: {error}"}, pipe)
    finally:
        os._exit(code)


def start(spec: dict[str, Any], death: list[Any] | None) -> dict[str, Any] | None:
    """A process from its start to its end; None if it was killed."""
    out, beats = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(out[0])
        os.close(beats[0])
        child(spec, death, out[1], beats[1])
    os.close(out[1])
    os.close(beats[1])
    if death is not None and death[0] == "outside":
        heard = 0
        while heard < death[1] and (more := os.read(beats[0], death[1] - heard)):
            heard += len(more)
        os.kill(pid, signal.SIGKILL)
    os.close(beats[0])
    with os.fdopen(out[0]) as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    return None if os.WIFSIGNALED(status) else dict(json.loads(told))


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """Start processes until one comes to the end."""
    killed = 0
    for death in [*spec.get("deaths", []), None]:
        found = start(spec, death)
        if found is not None:
            break
        killed += 1
        if death is not None and death[0] == "power":
            Synchronised(spec["dir"]).lose_power(random.Random(death[2]))
    assert found is not None
    disk = on_disk(spec["dir"]) if spec["dir"] and "error" not in found else {}
    return {**found, **disk, "killed": killed}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))

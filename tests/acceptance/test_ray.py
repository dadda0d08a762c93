"""The Ray engine on a real cluster of two nodes on this machine: the same bits as inline, whatever is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import pytest

import umbel
from tests.acceptance.clusters import MARKS, NODE, breaking, inline, on_ray, same, two_nodes
from umbel.aggregate.base import Aggregator
from umbel.aggregate.concat import split
from umbel.aggregate.expected import Expected
from umbel.errors import BadUpdate
from umbel.simulation import ray_runner

ray = pytest.importorskip("ray", reason="needs ray")
pytestmark = MARKS


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with one CPU each; this process is connected to it."""
    with two_nodes() as cluster:
        yield cluster


# --- the same bits ---------------------------------------------------------------------------


def convolutional() -> tuple[umbel.ServerApp, umbel.ClientApp]:
    """A CNN with dropout and shuffling loaders, FedAdam, clipping and client state: it shows threads and generators."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    nn = torch.nn

    def net() -> Any:
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(256, 5),
        )

    client = umbel.ClientApp()

    @client.setup
    def setup(ctx: Any) -> Any:
        return net()

    @client.data
    def load(ctx: Any) -> Any:
        x = torch.from_numpy(ctx.rng.normal(size=(16, 1, 8, 8)).astype(np.float32))
        return torch.utils.data.TensorDataset(x, torch.from_numpy(ctx.rng.integers(0, 5, 16)))

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        mine = umbel.torch.into(ctx.shared, model)
        mine.train()
        optimizer = torch.optim.SGD(mine.parameters(), lr=0.1, momentum=0.9)
        for x, y in torch.utils.data.DataLoader(ctx.data, batch_size=8, shuffle=True):
            loss = nn.functional.cross_entropy(mine(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ctx.state["drift"] = ctx.state.get("drift", 0.0) + loss.item()
        return umbel.Update(model=umbel.torch.arrays(mine), weight=16, metrics={"drift": ctx.state["drift"]})

    strategy = umbel.fed_adam(lr=0.01, cohort=umbel.sample.fraction(0.8)).with_(umbel.transforms.clip(1.0))
    return umbel.ServerApp(model=lambda: umbel.torch.arrays(net()), strategy=strategy, rounds=2), client


def test_a_network_with_dropout_and_200_clients(cluster: Any) -> None:
    server, client = convolutional()
    result = on_ray(server, client, 200)
    assert same(inline(server, client, 200), result)
    assert all(result.timing[name] > 0 for name in ("training", "moving", "folding", "waiting"))


def counting() -> umbel.ClientApp:
    """Clients that fail at random, and count their trainings."""
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        ctx.state["trainings"] = ctx.state.get("trainings", 0) + 1
        if ctx.rng.random() < 0.1:
            raise RuntimeError("drawn")
        x = (model["w"] + ctx.rng.normal(size=50)).astype(np.float32)
        return umbel.Update(model={"w": x}, weight=ctx.rng.integers(1, 9), metrics={"n": ctx.state["trainings"]})

    @client.evaluate
    def evaluate(model: umbel.Arrays, ctx: Any) -> umbel.Metrics:
        return umbel.Metrics({"far": float(np.abs(model["w"]).sum()) + ctx.rng.random()})

    return client


@pytest.mark.parametrize(("cohort", "budget"), [(1, 1 << 30), (150, 1 << 30), (250, 1 << 30), (65, 0), (250, 0)])
def test_failures_spares_and_states(cluster: Any, cohort: int, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a budget for what is folded here, the last shard is folded by an actor, and its spares behind it here."""
    monkeypatch.setattr(ray_runner, "_BUDGET", budget)
    policy = umbel.rounds(quorum=0.8, spare=40, retries=20)
    strategy = umbel.fed_avg(cohort=umbel.sample.count(cohort), rounds=policy, evaluate=umbel.evaluation(every=2))
    server = umbel.ServerApp(model={"w": np.zeros(50, np.float32)}, strategy=strategy, rounds=4)
    assert same(inline(server, counting(), 300), on_ray(server, counting(), 300))


def test_tasks_that_take_next_to_no_time(cluster: Any) -> None:
    """From the second shard on they are done in turn; few of them are not like the others, fail, or have a state."""
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        drawn = ctx.rng.random()
        if drawn < 0.05:
            raise RuntimeError("drawn")
        if drawn < 0.1:
            ctx.state["n"] = ctx.state.get("n", 0) + 1
        if drawn < 0.2:
            return umbel.Update(delta={"w": ctx.rng.normal(size=9)}, weight=2, metrics={"drawn": drawn})
        return umbel.Update(model={"w": model["w"] + drawn}, weight=ctx.rng.integers(1, 9), metrics={"drawn": drawn})

    strategy = umbel.fed_avg(rounds=umbel.rounds(quorum=0.5, spare=20))
    server = umbel.ServerApp(model={"w": np.zeros(9)}, strategy=strategy, rounds=3)
    result = on_ray(server, client, 400)
    assert same(inline(server, client, 400), result)
    assert result.failures


def test_both_nodes_work_and_threads_are_set_before_anything_is_loaded(cluster: Any, tmp_path: Path) -> None:
    client = umbel.ClientApp()

    @client.query("where")
    def where(model: Any, ctx: Any) -> umbel.Update:
        node = __import__("ray").get_runtime_context().get_node_id()
        (tmp_path / node).touch()
        while len(list(tmp_path.iterdir())) < 2:  # or the first has done everything before the second has started
            time.sleep(0.01)
        return umbel.Update(value={"node": node.encode(), "threads": os.environ["OMP_NUM_THREADS"].encode()})

    server = umbel.ServerApp(rounds=1)

    @server.main
    def main(fed: Any) -> None:
        got = fed.query("where", cohort=umbel.sample.everyone(), aggregator=umbel.aggregate.concat())
        fed.commit({"got": got.value})

    got = on_ray(server, client, 20).state["got"]
    assert {bytes(node).decode() for node in split(got, "node")} == {path.name for path in tmp_path.iterdir()}
    assert set(map(bytes, split(got, "threads"))) == {b"1"}


# --- updates that do not fit each other ------------------------------------------------------


def odd(names: set[str], what: str) -> umbel.ClientApp:
    """These clients return values, or metrics, of another shape."""
    client = umbel.ClientApp()

    @client.query("value")
    def value(model: Any, ctx: Any) -> umbel.Update:
        other = ctx.client.name in names
        values = np.full(3 if other and what == "value" else 2, ctx.rng.random())
        return umbel.Update(value={"x": values}, metrics={"m": np.ones(3 if other and what == "metric" else 2)})

    return client


@pytest.mark.parametrize("what", ["value", "metric"])
@pytest.mark.parametrize("odd_ones", [range(1), range(64, 128), range(150, 256)])
def test_the_same_are_refused_within_and_across_shards(cluster: Any, odd_ones: range, what: str) -> None:
    names = sorted(map(str, range(256)))
    client = odd({names[i] for i in odd_ones}, what)
    server = umbel.ServerApp(rounds=1)

    @server.main
    def main(fed: Any) -> None:
        policy = umbel.rounds(quorum=0)
        got = fed.query("value", cohort=umbel.sample.everyone(), aggregator=umbel.aggregate.sum(), policy=policy)
        fed.commit({"sum": got.sum, "clients": list(got.clients), "metrics": got.metrics})

    a, b = inline(server, client, names), on_ray(server, client, names)
    assert a.state["sum"] == b.state["sum"]
    assert a.state["clients"] == b.state["clients"]
    assert a.failures == b.failures
    assert len(a.failures) in (len(odd_ones), 256 - len(odd_ones))


@final
@dataclass(frozen=True, slots=True)
class Rising(Aggregator):
    """Takes only values that are larger than the sum of those before them."""

    result: ClassVar[str] = "total"

    def expects(self, sent: umbel.Arrays | None) -> Expected:  # noqa: ARG002
        return Expected(sent=None, shapes="free")

    def init(self, sent: umbel.Arrays | None) -> list[float]:  # noqa: ARG002
        return [0.0]

    def admit(self, acc: list[float], update: umbel.Update) -> None:
        if update.arrays["x"] <= acc[0]:
            raise BadUpdate(f"{update.arrays['x']} is not larger than {acc[0]}")

    def fold(self, acc: list[float], update: umbel.Update, sent: umbel.Arrays | None) -> list[float]:  # noqa: ARG002
        return [acc[0] + float(update.arrays["x"])]

    def merge(self, acc: list[float], later: list[float]) -> list[float]:
        return [acc[0] + later[0]]

    def finish(self, acc: list[float]) -> umbel.Arrays:
        return umbel.Arrays({"x": acc[0]})


def test_an_aggregator_that_looks_at_what_was_folded_before(cluster: Any) -> None:
    client = umbel.ClientApp()

    @client.query("value")
    def value(model: Any, ctx: Any) -> umbel.Update:
        return umbel.Update(value={"x": float(1.07 ** int(ctx.client.name) * ctx.rng.random())})

    server = umbel.ServerApp(rounds=1)

    @server.main
    def main(fed: Any) -> None:
        policy = umbel.rounds(quorum=0)
        got = fed.query("value", cohort=umbel.sample.everyone(), aggregator=Rising(), policy=policy)
        fed.commit({"x": got.value, "clients": list(got.clients)})

    names = [f"{i:03}" for i in range(140)]
    a, b = inline(server, client, names), on_ray(server, client, names)
    assert a.state == b.state
    assert a.failures == b.failures
    assert 1 < len(a.state["clients"]) < 140


# --- what is lost ----------------------------------------------------------------------------


def federation(rounds: int = 3, size: int = 50, **policy: Any) -> umbel.ServerApp:
    strategy = umbel.fed_avg(rounds=umbel.rounds(**policy))
    return umbel.ServerApp(model={"w": np.zeros(size, np.float32)}, strategy=strategy, rounds=rounds)


def harmless(ctx: Any) -> None:
    """Nothing happens."""


@pytest.mark.parametrize(("clients", "how"), [(30, signal.SIGKILL), (200, signal.SIGKILL), (30, signal.SIGTERM)])
def test_a_worker_is_killed(
    cluster: Any, clients: int, how: signal.Signals, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While it folds a shard, and while it makes updates that are folded here."""
    once = tmp_path / "once"

    def trouble(ctx: Any) -> None:
        if ctx.round == 2 and ctx.client.name == "17" and not once.exists():
            once.touch()
            os.kill(os.getpid(), how)

    assert same(inline(federation(), breaking(harmless), clients), on_ray(federation(), breaking(trouble), clients))
    assert once.exists()
    assert [r.getMessage().partition(":")[0] for r in caplog.records if r.name == "umbel"] == ["worker-lost"]


@pytest.mark.parametrize("exits", [True, False])
def test_a_client_that_kills_its_worker_each_time_fails(cluster: Any, exits: bool) -> None:
    def deadly(ctx: Any) -> None:
        if ctx.client.name == "17":
            if exits:
                os._exit(3)
            raise KeyboardInterrupt

    def failing(ctx: Any) -> None:
        if ctx.client.name == "17":
            raise RuntimeError

    server = federation(1, quorum=0.5)
    a, b = inline(server, breaking(failing), 200), on_ray(server, breaking(deadly), 200)
    assert [f.client for f in a.failures] == [f.client for f in b.failures] == ["17"]
    assert a.model == b.model
    assert "lives" in b.failures[0].message


def test_a_node_is_removed(cluster: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In its third piece, when nobody has fetched yet what it has done."""
    third = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    here, gone, done, first = tmp_path / "here", third.node_id, tmp_path / "done", tmp_path / "first"

    def trouble(ctx: Any) -> None:
        if ctx.round == 2 and __import__("ray").get_runtime_context().get_node_id() == gone:
            with done.open("a") as file:
                file.write(".")
            if ctx.client.name == "0":
                first.touch()
            if done.stat().st_size > 130:
                here.touch()
                signal.pause()
        else:
            while ctx.round == 2 and not here.exists():  # or they do everything before the third node has started
                time.sleep(0.01)

    def remove() -> None:
        while not here.exists():
            time.sleep(0.01)
        cluster.remove_node(third, allow_graceful=False)

    remover = threading.Thread(target=remove, daemon=True)
    remover.start()
    result = on_ray(federation(size=30_000), breaking(trouble), 400)
    remover.join()
    assert same(inline(federation(size=30_000), breaking(harmless), 400), result)
    assert "worker was lost" in caplog.text
    # what it did is fetched at once where nothing before it is missing: then nothing was left there to be lost
    assert "results are lost" in caplog.text or first.exists()


@pytest.mark.parametrize(("round", "clients"), [(1, 5), (3, 256)])
def test_a_client_that_writes_into_the_model_ends_the_run(cluster: Any, round: int, clients: int) -> None:
    """Alone, and where tasks are done in turn."""
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        if ctx.client.name == "3" and ctx.round == round:  # as torch.from_numpy does, behind NumPy's back
            np.ctypeslib.as_array((__import__("ctypes").c_double * 50).from_address(model["w"].ctypes.data))[0] = 7
        return umbel.Update(model=model)

    with pytest.raises(umbel.errors.RunError, match=r"client '3'.*wrote into the arrays"):
        on_ray(umbel.ServerApp(model={"w": np.zeros(50)}, strategy=umbel.fed_avg(), rounds=round), client, clients)


def test_code_that_a_worker_cannot_load_ends_the_run(cluster: Any) -> None:
    class Broken:
        def __reduce__(self) -> Any:
            return (exec, ("raise ImportError('there is no such module here')",))

    broken = Broken()
    client = breaking(lambda ctx: broken)  # noqa: ARG005
    with pytest.raises(umbel.errors.RunError, match="there is no such module here"):
        on_ray(federation(), client, 5)


# --- over several runs, and without a cluster ------------------------------------------------


def test_in_a_with_statement_actors_and_their_set_up_stay(cluster: Any, tmp_path: Path) -> None:
    client = breaking(harmless)

    @client.setup
    def setup(ctx: Any) -> None:
        (tmp_path / str(time.monotonic_ns())).touch()

    @client.use
    def around(model: Any, ctx: Any, call: Any) -> Any:
        assert ctx.shared is None
        return call(model, ctx)

    with umbel.Ray(clients=100, workers=1) as place:
        results = [umbel.run(federation(), client, on=place, seed=1) for _ in range(2)]
        model = results[0].model
        assert model is not None
        found = umbel.evaluate(model, counting(), on=place, seed=1).metrics
    assert same(*results)
    assert found == umbel.evaluate(model, counting(), on=umbel.Simulation(clients=100, engine="inline"), seed=1).metrics
    assert len(list(tmp_path.iterdir())) == 1
    assert ray.is_initialized(), "it was not ours to end"


def test_debugging_is_done_in_this_process() -> None:
    class Mine(Exception):
        pass

    def trouble(ctx: Any) -> None:
        raise Mine

    with pytest.raises(Mine):
        on_ray(federation(), breaking(trouble), 3, debug=True)


@pytest.mark.parametrize(
    "arguments",
    [{"address": 3}, {"threads": 0}, {"workers": 0}, {"cpus": -1}, {"gpus": "all"}, {"cpus": 0}, {"clients": None}],
)
def test_arguments_that_make_no_sense(arguments: Any) -> None:
    with pytest.raises(umbel.errors.UsageError):
        umbel.Ray(**{"clients": 3, **arguments})


PROGRAM = """
import os, signal, sys
import numpy as np
import ray
import umbel
{app}
driver = os.getpid()
interrupted = []

client = make(driver)
server = umbel.ServerApp(model={{"w": np.zeros(5)}}, strategy=umbel.fed_avg(), rounds=3)
directory, once = sys.argv[1:]

def federate(on, **arguments):
    return umbel.run(server, client, on=on, seed=1, **arguments)

place = umbel.Ray("local", clients=150, workers=2, cpus=0.5)
open(once, "w").close()
try:
    federate(place, dir=directory)
except KeyboardInterrupt:
    print("interrupted", ray.is_initialized())
inline = umbel.Simulation(clients=150, engine="inline")
print(federate(inline, dir=directory).model == federate(inline).model)
print(ray.is_initialized())
"""
APP = """
import os, signal, sys
import numpy as np
import umbel

class Scale:
    by = 0.5

def make(driver):
    client = umbel.ClientApp()
    once = sys.argv[2]

    @client.train
    def train(model, ctx):
        if ctx.round == 2 and ctx.client.name == "7" and os.path.exists(once):
            os.unlink(once)
            os.kill(driver, signal.SIGINT)
        return umbel.Update(model={"w": model["w"] + Scale.by * ctx.rng.normal(size=5)})

    return client
"""


@pytest.mark.parametrize("where", ["__main__", "module"])
def test_a_program_with_a_ray_of_its_own_is_interrupted_and_goes_on(where: str, tmp_path: Path) -> None:
    app = APP
    if where == "module":
        (tmp_path / "hospitals.py").write_text(APP)
        app = "from hospitals import make"
    (tmp_path / "program.py").write_text(PROGRAM.format(app=app))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "run"), str(tmp_path / "once")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.stdout.split() == ["interrupted", "False", "True", "False"], done.stderr

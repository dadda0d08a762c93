"""Same seed, same answers: same bits, whoever calls and in whatever order things are done.

The federation is one that shows threads and generators: a CNN with dropout, a shuffling DataLoader, FedAdam,
clipping, and client state.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel

torch = pytest.importorskip("torch", reason="needs PyTorch")
nn = torch.nn


class Net(nn.Module):  # type: ignore[misc,name-defined]  # torch comes from importorskip
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 64, 10)
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Any) -> Any:
        return self.fc(self.drop(torch.relu(self.norm(self.conv(x))).flatten(1)))


def make_client() -> umbel.ClientApp:
    client = umbel.ClientApp()

    @client.setup
    def setup(ctx: Any) -> Any:
        return Net()

    @client.data
    def load(ctx: Any) -> Any:
        x = torch.from_numpy(ctx.rng.normal(size=(24, 1, 8, 8)).astype(np.float32))
        y = torch.from_numpy(ctx.rng.integers(0, 10, 24))
        return torch.utils.data.TensorDataset(x, y)

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        net = umbel.torch.into(ctx.shared, model)
        net.train()
        optimizer = torch.optim.SGD(net.parameters(), lr=ctx.config["lr"], momentum=0.9)
        for x, y in torch.utils.data.DataLoader(ctx.data, batch_size=8, shuffle=True):
            x = x + 0.01 * random.random() + 0.01 * np.random.rand()  # noqa: PLW2901  # as user code draws
            loss = nn.functional.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ctx.state["trainings"] = ctx.state.get("trainings", 0) + 1
        return umbel.Update(model=umbel.torch.arrays(net), weight=24, metrics={"loss": loss.item()})

    return client


def federate(clients: int = 5, rounds: int = 3, **arguments: Any) -> umbel.Result:
    strategy = umbel.fed_adam(
        lr=0.01,
        cohort=umbel.sample.fraction(0.6),
        config={"lr": umbel.schedule.cosine(0.1, rounds=6)},
    ).with_(umbel.transforms.clip(1.0))
    server = umbel.ServerApp(model=lambda: umbel.torch.arrays(Net()), strategy=strategy, rounds=rounds)
    return umbel.run(server, make_client(), on=umbel.Simulation(clients=clients), seed=11, **arguments)


def same(a: umbel.Result, b: umbel.Result) -> bool:
    assert a.model is not None
    assert b.model is not None
    return a.model == b.model and a.history == b.history


def test_twice_the_same() -> None:
    assert same(federate(), federate())


def test_a_caller_with_two_threads_and_used_generators() -> None:
    plain = federate()
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    torch.set_num_threads(2)
    torch.manual_seed(5)
    np.random.seed(5)  # what a caller does
    random.seed(5)
    try:
        drawn = (torch.rand(3).tolist(), np.random.rand(), random.random())
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)
        assert same(plain, federate())
        assert torch.get_num_threads() == 2, "threads are given back"
        assert drawn == (torch.rand(3).tolist(), np.random.rand(), random.random()), "generators are given back"
    finally:
        torch.set_num_threads(threads)
        torch.random.set_rng_state(state)


SCRIPT = """
import sys
if sys.argv[1] == "early":
    import torch
import numpy as np
import umbel

client = umbel.ClientApp()

@client.train
def train(model, ctx):
    import torch
    from torch import nn
    net = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 256, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        x, y = torch.rand(32, 1, 16, 16), torch.randint(0, 10, (32,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return umbel.Update(value=umbel.torch.arrays(net))

server = umbel.ServerApp(rounds=1)

@server.main
def main(fed):
    got = fed.query("sum", cohort=umbel.sample.everyone(), aggregator=umbel.aggregate.sum())
    fed.commit({"model": got.sum})

client.query("sum")(train)
for _ in range(2):
    print(umbel.run(server, client, on=umbel.Simulation(clients=3), seed=1).model.digest())
"""


def test_a_process_that_has_computed_nothing_yet_and_one_that_imports_torch_in_its_handler(tmp_path: Path) -> None:
    """MKL inside torch counts its threads for itself, and asks the environment when it is loaded."""
    (tmp_path / "program.py").write_text(SCRIPT)
    digests = set()
    for when in ("early", "late"):
        done = subprocess.run(
            [sys.executable, str(tmp_path / "program.py"), when], check=True, capture_output=True, text=True
        )
        digests |= set(done.stdout.split())
    assert len(digests) == 1


def test_user_code_that_changes_the_threads_is_set_back() -> None:
    client = make_client()

    @client.use
    def greedy(model: Any, ctx: Any, call: Any) -> Any:
        answer = call(model, ctx)
        torch.set_num_threads(2)
        return answer

    server = umbel.ServerApp(
        model=lambda: umbel.torch.arrays(Net()), strategy=umbel.fed_avg(config={"lr": 0.1}), rounds=2
    )
    results = [umbel.run(server, c, on=umbel.Simulation(clients=3), seed=1) for c in (client, make_client())]
    assert same(*results)


def test_what_clients_do_to_the_threads_does_not_reach_the_server() -> None:
    """A resumed main gets their answers from the record, and would compute with another number."""
    client = umbel.ClientApp()

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        torch.set_num_threads(2)
        return umbel.Update(model=model)

    server = umbel.ServerApp(model={"w": np.zeros(2)}, rounds=2)

    @server.evaluate
    def test(model: Any, ctx: Any) -> umbel.Metrics:
        return umbel.Metrics({"in a test": torch.get_num_threads()})

    @server.main
    def main(fed: Any) -> None:
        for _ in fed.rounds():
            fed.train(fed.initial, cohort=umbel.sample.everyone())
            fed.commit({"model": fed.initial}, metrics={"in main": torch.get_num_threads()})
            torch.set_num_threads(2)

    history = umbel.run(server, client, on=umbel.Simulation(clients=2), seed=1).history
    assert history["in main"].tolist() == history["in a test"].tolist() == [1, 1]


def test_evaluating_more_often_does_not_change_the_training() -> None:
    def with_evaluation(every: int) -> umbel.Result:
        client = make_client()

        @client.evaluate
        def evaluate(model: umbel.Arrays, ctx: Any) -> umbel.Metrics:
            net = umbel.torch.into(ctx.shared, model)
            net.eval()
            torch.rand(7)
            return umbel.Metrics({"logit": net(ctx.data.tensors[0]).mean().item()})

        strategy = umbel.fed_avg(config={"lr": 0.1}, evaluate=umbel.evaluation(every=every))
        server = umbel.ServerApp(model=lambda: umbel.torch.arrays(Net()), strategy=strategy, rounds=4)
        return umbel.run(server, client, on=umbel.Simulation(clients=4), seed=2)

    often, seldom = with_evaluation(1), with_evaluation(3)
    assert often.model == seldom.model
    assert np.isfinite(often.history["logit"]).tolist() == [True] * 4
    assert np.isfinite(seldom.history["logit"]).tolist() == [False, False, True, False]


@pytest.mark.parametrize("cohort", [1, 63, 64, 65, 200])
def test_cohorts_around_the_size_of_a_shard(cohort: int, tmp_path: Any) -> None:
    """In memory, durable in steps, and kept data: the same bits, and states that count their folded updates."""
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        ctx.state["trainings"] = ctx.state.get("trainings", 0) + 1
        if ctx.rng.random() < 0.05:
            raise RuntimeError("drawn")
        x = (model["w"] + ctx.rng.normal(size=50)).astype(np.float32)
        return umbel.Update(model={"w": x}, weight=ctx.rng.integers(1, 9), metrics={"n": ctx.state["trainings"]})

    @client.query("trainings")
    def trainings(model: Any, ctx: Any) -> umbel.Update:
        return umbel.Update(value={"n": ctx.state.get("trainings", 0)}, metrics={})

    strategy = umbel.fed_avg(cohort=umbel.sample.count(cohort), rounds=umbel.rounds(quorum=0.5, retries=20))
    server = umbel.ServerApp(model={"w": np.zeros(50, np.float32)}, strategy=strategy, rounds=5)
    on = umbel.Simulation(clients=250)
    straight = umbel.run(server, client, on=on, seed=3)
    for rounds in (2, 5):
        stepped = umbel.run(server, client, on=on, seed=3, dir=tmp_path / "run", rounds=rounds)
    assert same(straight, stepped)

    counting = umbel.ServerApp()

    @counting.main
    def main(fed: Any) -> None:
        for name in ("a", "b"):
            fed.train(
                umbel.Arrays({"w": np.zeros(50, np.float32)}),
                cohort=umbel.sample.everyone(),
                policy=umbel.rounds(quorum=0),
            )
            del name
        got = fed.query("trainings", cohort=umbel.sample.everyone(), aggregator=umbel.aggregate.concat())
        fed.commit({"n": got.value})

    # the state that a client has at the end is the number of its updates that were counted
    counted = umbel.run(counting, client, on=umbel.Simulation(clients=cohort), seed=4, rounds=1)
    order = sorted(counted.clients)
    by_query = counted.state["n"]["n"] if cohort > 1 else np.atleast_1d(counted.state["n"]["n"])
    assert by_query.tolist() == [counted.clients[name].counted - 1 for name in order]

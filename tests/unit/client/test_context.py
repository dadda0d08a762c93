"""What each kind of handler finds in its context."""

# ruff: noqa: ARG005  # handlers take what they are given
from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from umbel.errors import QuorumMissed, UsageError

SITES = {"berlin": {"path": "b.csv", "nested": {"list": [1]}}, "paris": {"path": "p.csv"}}
MODEL = {"w": np.zeros(2, np.float32)}


def everything(seen: dict[str, dict[str, Any]]) -> tuple[umbel.ServerApp, umbel.ClientApp]:
    """Apps whose handlers note what they find."""
    client = umbel.ClientApp()

    def note(kind: str, ctx: Any) -> None:
        seen.setdefault(kind, {})[ctx.client.name] = {
            "site": dict(ctx.site),
            "config": dict(ctx.config),
            "extra": sorted(ctx.extra),
            "round": ctx.round,
            "state": dict(ctx.state),
            "device": ctx.device,
            "labels": ctx.client.labels,
            "rng": ctx.rng.random(),
            "random": random.random(),
            "numpy": np.random.rand(),  # as user code draws
            "scratch": ctx.scratch,
            "empty": list(ctx.scratch.iterdir()),
        }
        (ctx.scratch / "file").write_text("x")

    @client.setup
    def setup(ctx: Any) -> str:
        note("setup", ctx)
        return "shared"

    @client.data
    def data(ctx: Any) -> str:
        note("data", ctx)
        assert ctx.shared == "shared"
        return f"data of {ctx.client.name}"

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        note("train", ctx)
        assert (ctx.shared, ctx.data) == ("shared", f"data of {ctx.client.name}")
        ctx.state["trained"] = ctx.round
        return umbel.Update(model=model)

    @client.evaluate
    def evaluate(model: Any, ctx: Any) -> umbel.Metrics:
        note("evaluate", ctx)
        assert ctx.data == f"data of {ctx.client.name}"
        return umbel.Metrics({"n": 1.0})

    @client.query("ask")
    def ask(model: Any, ctx: Any) -> umbel.Update:
        note("query", ctx)
        assert model is None
        assert ctx.data == f"data of {ctx.client.name}"
        return umbel.Update(value={"n": 1})

    server = umbel.ServerApp(model=MODEL, rounds=2)

    @server.main
    def main(fed: Any) -> None:
        everyone = umbel.sample.everyone()
        for r in fed.rounds():
            extra = {"more": fed.initial}
            fed.train(
                fed.initial, cohort=everyone, config={"lr": umbel.schedule.piecewise(0.5, {2: 0.25})}, extra=extra
            )
            fed.evaluate(fed.initial, cohort=everyone, config={"k": [1, 2]})
            fed.query("ask", cohort=everyone, config={"r": r})
            fed.commit({"model": fed.initial})

    @server.evaluate
    def central(model: Any, ctx: Any) -> umbel.Metrics:
        note("server", ctx)
        return umbel.Metrics({"central": 1.0})

    return server, client


def run(**simulation: Any) -> dict[str, dict[str, Any]]:
    seen: dict[str, dict[str, Any]] = {}
    server, client = everything(seen)
    on = umbel.Simulation(clients=SITES, labels={"paris": {"country": "fr"}}, devices="cpu", **simulation)
    umbel.run(server, client, on=on, seed=4)
    return seen


def test_each_handler_finds_what_is_its_own() -> None:
    seen = run()
    assert seen["train"]["berlin"]["site"] == SITES["berlin"]
    assert seen["train"]["paris"]["labels"] == {"country": "fr"}
    assert seen["train"]["berlin"]["labels"] == {}
    assert (seen["train"]["berlin"]["round"], seen["train"]["berlin"]["config"]) == (2, {"lr": 0.25})
    assert seen["train"]["berlin"]["extra"] == ["more"]
    assert seen["train"]["berlin"]["state"] == {"trained": 1}
    assert seen["evaluate"]["berlin"]["state"] == {"trained": 2}
    assert seen["evaluate"]["berlin"]["config"] == {"k": [1, 2]}
    assert seen["query"]["berlin"]["config"] == {"r": 2}
    assert seen["data"]["paris"]["site"] == SITES["paris"]
    assert (seen["data"]["paris"]["round"], seen["data"]["paris"]["config"], seen["data"]["paris"]["state"]) == (
        0,
        {},
        {},
    )
    assert set(seen["setup"]) == {""}
    assert set(seen["server"]) == {"server"}
    assert (seen["server"]["server"]["round"], seen["server"]["server"]["site"]) == (2, {})
    assert {task["device"] for kind in seen.values() for task in kind.values()} == {"cpu"}


def test_scratch_is_empty_at_first_and_gone_afterwards() -> None:
    for kind in run().values():
        for task in kind.values():
            assert task["empty"] == []
            assert isinstance(task["scratch"], Path)
            assert not task["scratch"].exists()


def test_scratch_is_gone_when_a_handler_fails_or_removes_it_itself() -> None:
    seen: list[Path] = []

    def use(ctx: Any, fails: str) -> None:
        seen.append(ctx.scratch)
        (ctx.scratch / "folder").mkdir(mode=0)
        if ctx.client.name == "removes":
            shutil.rmtree(ctx.scratch)
        if ctx.client.name == fails:
            raise OSError("drawn")

    client = umbel.ClientApp()
    client.data(lambda ctx: use(ctx, "fails to load"))

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        use(ctx, "fails to train")
        return umbel.Update(model=model)

    strategy = umbel.fed_avg(rounds=umbel.rounds(quorum=0.2))
    on = umbel.Simulation(clients=["fails to load", "fails to train", "removes", "works"])
    result = umbel.run(umbel.ServerApp(MODEL, strategy, 1), client, on=on, seed=0)
    assert sorted(f.client for f in result.failures) == ["fails to load", "fails to train"]
    assert len(seen) == 7
    assert not any(path.exists() for path in seen)


def test_draws_are_the_same_in_the_same_run_and_differ_between_handlers_and_clients() -> None:
    first, again = run(), run()
    drawn = []
    for kind in first:
        for name in first[kind]:
            for how in ("rng", "random", "numpy"):
                assert first[kind][name][how] == again[kind][name][how]
                drawn.append(first[kind][name][how])
    assert len(set(drawn)) == len(drawn)


def one(train: Any) -> umbel.Result:
    client = umbel.ClientApp()
    client.train(train)
    server = umbel.ServerApp(model=MODEL, strategy=umbel.fed_avg(config={"layers": [1, {"w": [2]}]}), rounds=3)
    return umbel.run(server, client, on=umbel.Simulation(clients=SITES), seed=4)


def test_what_a_handler_does_to_its_context_reaches_nobody_else() -> None:
    def train(model: Any, ctx: Any) -> umbel.Update:
        assert ctx.config == {"layers": [1, {"w": [2]}]}
        assert ctx.site == SITES[ctx.client.name]
        ctx.config["layers"][1]["w"].append(9)
        ctx.site.get("nested", {"list": []})["list"].append(9)
        ctx.client.labels["x"] = "y"
        return umbel.Update(model=model)

    assert one(train).status == "finished"


def test_an_array_of_the_site_or_the_config_is_read_only() -> None:
    site, weights = np.ones(3), np.ones(2)

    def train(model: Any, ctx: Any) -> umbel.Update:
        for array in (ctx.site["a"], ctx.site["in"]["a"], ctx.client.site["a"], ctx.config["w"], ctx.config["in"][0]):
            assert array.sum() == len(array)
            with pytest.raises(ValueError, match="read-only"):
                array.fill(0)
        with pytest.raises(ValueError, match="WRITEABLE"):
            ctx.config["w"].flags.writeable = True
        return umbel.Update(model=model)

    client = umbel.ClientApp()
    client.train(train)
    server = umbel.ServerApp(MODEL, umbel.fed_avg(config={"w": weights, "in": [weights]}), 2)
    on = umbel.Simulation(clients={name: {"a": site, "in": {"a": site}} for name in "ab"})
    assert umbel.run(server, client, on=on, seed=4).status == "finished"
    assert site.flags.writeable
    assert weights.flags.writeable


def test_a_state_is_set_as_a_whole_too() -> None:
    def train(model: Any, ctx: Any) -> umbel.Update:
        assert ctx.state == ({"n": ctx.round - 1} if ctx.round > 1 else {})
        ctx.state = {"n": ctx.round}
        return umbel.Update(model=model)

    assert one(train).status == "finished"


def test_an_array_of_the_state_is_the_handlers_own() -> None:
    """One that is changed in place and then fails leaves no trace."""

    def train(model: Any, ctx: Any) -> umbel.Update:
        ctx.state.setdefault("sum", np.zeros(2))
        ctx.state["sum"] += 1
        if ctx.round == 2:
            raise OSError("drawn")
        return umbel.Update(model=model, metrics={"sum": ctx.state["sum"][0]})

    client = umbel.ClientApp()
    client.train(train)
    strategy = umbel.fed_avg(rounds=umbel.rounds(quorum=0))
    result = umbel.run(umbel.ServerApp(MODEL, strategy, 3), client, on=umbel.Simulation(clients=2), seed=0)
    assert result.history["sum"].tolist() == pytest.approx([1.0, np.nan, 2.0], nan_ok=True)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning")
def test_a_kept_array_is_safe_from_what_writes_to_read_only_memory() -> None:
    torch = pytest.importorskip("torch")
    seen: list[tuple[str, float]] = []

    def write(kind: str, ctx: Any) -> None:
        for array in (ctx.state["a"]["x"], ctx.state["n"]):
            seen.append((kind, float(array[0])))
            torch.from_numpy(array).add_(1)

    client = umbel.ClientApp()

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        if ctx.round == 1:
            ctx.state |= {"a": umbel.Arrays({"x": np.zeros(2)}), "n": np.zeros(2)}
            return umbel.Update(model=model)
        write("train", ctx)
        raise OSError("drawn")

    @client.evaluate
    def evaluate(model: Any, ctx: Any) -> umbel.Metrics:
        write("evaluate", ctx)
        return umbel.Metrics({})

    strategy = umbel.fed_avg(rounds=umbel.rounds(quorum=0))
    umbel.run(umbel.ServerApp(MODEL, strategy, 3), client, on=umbel.Simulation(clients=1), seed=0)
    one = [("evaluate", 0.0)] * 2
    assert seen == one + ([("train", 0.0)] * 2 + one) * 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda ctx: ctx.state.update(n=1), r"ctx\.state in evaluate is read-only"),
        (lambda ctx: ctx.state["x"].fill(1), "read-only"),
        (lambda ctx: ctx.state.pop("x"), r"ctx\.state in evaluate is read-only"),
        (lambda ctx: setattr(ctx, "state", {}), r"ctx\.state in evaluate is read-only"),
    ],
)
def test_an_evaluation_changes_no_state(change: Any, says: str) -> None:
    client = umbel.ClientApp()

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        assert ctx.state.get("x", np.zeros(1)).tolist() == [0]
        ctx.state["x"] = np.zeros(1)
        return umbel.Update(model=model)

    @client.evaluate
    def evaluate(model: Any, ctx: Any) -> umbel.Metrics:
        assert ctx.state["x"].tolist() == [0]
        change(ctx)
        return umbel.Metrics({})

    with pytest.raises(QuorumMissed, match=says):
        umbel.run(umbel.ServerApp(MODEL, umbel.fed_avg(), 2), client, on=umbel.Simulation(clients=1), seed=0)


def test_what_is_not_there_says_how_it_would_be() -> None:
    for kind, handler, says in (
        ("train", lambda model, ctx: ctx.shared, r"ctx\.shared is not there in train(?s:.*)@client\.setup in front"),
        ("train", lambda model, ctx: ctx.data, r"ctx\.data is not there in train(?s:.*)@client\.data in front"),
        ("setup", lambda ctx: ctx.data, r"ctx\.data is not there in setup(?s:.*)once per process"),
        ("setup", lambda ctx: ctx.state.update(a=1), r"ctx\.state in setup is read-only"),
        ("data", lambda ctx: ctx.state.update(a=1), r"ctx\.state in data is read-only"),
    ):
        client = umbel.ClientApp()
        getattr(client, kind)(handler)
        if kind != "train":
            client.train(lambda model, ctx: umbel.Update(model=model))
        with pytest.raises(QuorumMissed, match=says):
            umbel.run(umbel.ServerApp(MODEL, umbel.fed_avg(), 1), client, on=umbel.Simulation(clients=1), seed=0)


def test_the_server_has_no_clients_data() -> None:
    server = umbel.ServerApp(MODEL, umbel.fed_avg(), 1)

    @server.evaluate
    def central(model: Any, ctx: Any) -> umbel.Metrics:
        return umbel.Metrics({"n": len(ctx.data)})

    client = umbel.ClientApp()
    client.data(lambda ctx: [1])
    client.train(lambda model, ctx: umbel.Update(model=model))
    result = umbel.run(server, client, on=umbel.Simulation(clients=1), seed=0)
    assert "the server has no client's data" in result.failures[0].message


def test_a_context_says_what_it_is() -> None:
    def train(model: Any, ctx: Any) -> umbel.Update:
        assert repr(ctx).startswith(f"Context(train, client={ctx.client.name!r}, round={ctx.round}, config={{'layers'")
        return umbel.Update(model=model)

    one(train)


def test_errors_settings_of_numpy_are_given_back() -> None:
    def train(model: Any, ctx: Any) -> umbel.Update:
        np.seterr(all="raise")
        return umbel.Update(model=model)

    before = np.geterr()
    one(train)
    assert np.geterr() == before
    with pytest.raises(UsageError, match="config"):
        umbel.fed_avg(config={"lr": object()})

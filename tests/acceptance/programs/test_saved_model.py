"""A model is a .safetensors file: saved, evaluated by the clients later, and started from again."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np
import pytest

import umbel

client = umbel.ClientApp()
truth = np.array([1.0, -2.0, 3.0])


@client.data
def load(ctx):
    x = ctx.rng.normal(size=(30, 3))
    return x, x @ truth


@client.train
def train(model, ctx):
    x, y = ctx.data
    return umbel.Update(model={"w": model["w"] - 0.1 * x.T @ (x @ model["w"] - y) / len(x)}, weight=len(x))


@client.evaluate
def evaluate(model, ctx):
    x, y = ctx.data
    return umbel.Metrics({"error": np.abs(x @ model["w"] - y).mean()}, weight=len(x))


server = umbel.ServerApp(model={"w": np.zeros(3)}, strategy=umbel.fed_avg(), rounds=10)
federation = umbel.Simulation(clients=5)


def test_clients_evaluate_a_saved_model(tmp_path):
    result = umbel.run(server, client, on=federation, seed=1)
    result.model.save(tmp_path / "model.safetensors")
    evaluation = umbel.evaluate(tmp_path / "model.safetensors", client, on=federation, seed=1)
    assert evaluation.metrics["error"] == result.history["error"][-1]
    assert {n: m["error"] for n, m in evaluation.clients.items()} == {
        n: c.metrics["error"] for n, c in result.clients.items()
    }
    worst = umbel.evaluate(result.model, client, on=federation, seed=1, metrics={"error": umbel.metrics.maximum()})
    assert worst.metrics["error.max"] == max(c["error"] for c in evaluation.clients.values())


def test_training_starts_from_a_saved_model_or_from_a_result(tmp_path):
    first = umbel.run(server, client, on=federation, seed=1, dir=tmp_path)
    from_path = umbel.run(server, client, on=federation, seed=2, initial=tmp_path / "model.safetensors")
    from_result = umbel.run(server, client, on=federation, seed=2, initial=first.model)
    assert from_path.model == from_result.model
    assert from_path.history["error"][0] < first.history["error"][-1] * 1.5  # another seed: other data
    assert np.abs(from_path.model["w"] - truth).max() < np.abs(first.model["w"] - truth).max()


def test_what_is_no_model_is_refused_by_name(tmp_path):
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(umbel.UmbelError, match=r"notes\.txt is not a safetensors file"):
        umbel.evaluate(tmp_path / "notes.txt", client, on=federation)
    with pytest.raises(umbel.UmbelError, match=r"missing\.safetensors"):
        umbel.evaluate(tmp_path / "missing.safetensors", client, on=federation)

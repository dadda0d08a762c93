"""PyTorch as people write it: loaders, schedulers, clipped gradients, batch norm, optimizers with a memory."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import pytest

import umbel
from tests.acceptance.programs.handwriting import DataLoader, accuracy, cnn, epoch, labels, nn, part, torch

client = umbel.ClientApp()


@client.setup
def setup(ctx):
    return cnn()


@client.data
def load(ctx):
    return part(ctx.client.part)


@client.train
def train(model, ctx):
    net = umbel.torch.into(ctx.shared, model).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1 * 0.9 ** (ctx.round - 1), momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    for _ in range(2):
        for x, y in DataLoader(ctx.data, batch_size=16, shuffle=True, num_workers=0, drop_last=True):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        scheduler.step()
    return umbel.Update(
        model=umbel.torch.arrays(net),
        weight=len(ctx.data),
        metrics={"loss": loss, "lr": scheduler.get_last_lr()[0]},
    )


@client.evaluate
def evaluate(model, ctx):
    return umbel.Metrics({"accuracy": accuracy(umbel.torch.into(ctx.shared, model), ctx.data)}, weight=len(ctx.data))


def federation():
    return umbel.Simulation(clients=umbel.partition.dirichlet(labels[:500], clients=10, alpha=1, min_size=16, seed=1))


server = umbel.ServerApp(
    model=lambda: umbel.torch.arrays(cnn()),
    strategy=umbel.fed_avg(cohort=umbel.sample.fraction(0.4)),
    rounds=5,
)


def test_same_seed_same_bits_whatever_the_caller_did_to_torch():
    """With shuffling and dropout; the caller computes with two threads and has drawn random numbers."""
    first = umbel.run(server, client, on=federation(), seed=1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        torch.manual_seed(99)
        again = umbel.run(server, client, on=federation(), seed=1)
        assert torch.get_num_threads() == 2
        torch.manual_seed(99)
        untouched = torch.rand(1)
        torch.manual_seed(99)
        umbel.run(server.with_(rounds=1), client, on=federation(), seed=1)
        assert torch.rand(1) == untouched
    finally:
        torch.set_num_threads(before)
    assert again.model == first.model
    assert again.history == first.history
    assert umbel.run(server, client, on=federation(), seed=2).model != first.model
    assert first.history["accuracy"][-1] > 0.5
    assert first.history["lr"].tolist() == pytest.approx([0.025 * 0.9**r for r in range(5)])


def test_batch_norm_statistics_are_averaged_and_never_stepped():
    """FedAdam would turn a running variance negative; a counter stays the server's."""
    adaptive = server.with_(strategy=umbel.fed_adam(lr=0.1, cohort=umbel.sample.fraction(0.4)))
    model = umbel.run(adaptive, client, on=federation(), seed=1).model
    roles = {e.name: e.role for e in model.spec.entries}
    assert (roles["1.running_var"], roles["1.num_batches_tracked"]) == ("buffer", "counter")
    assert (model["1.running_var"] > 0).all()
    assert model["1.num_batches_tracked"] == 0


def test_a_loop_of_ones_own_averages_a_whole_network():
    """`model + mean` is the new model, batch norm's counters included."""
    own = umbel.ServerApp(model=server.model, rounds=2)

    @own.main
    def main(fed):
        model = fed.state["model"] if fed.state else fed.initial
        for _ in fed.rounds():
            model = model + fed.train(model, cohort=umbel.sample.everyone()).mean
            fed.commit({"model": model})

    alike = server.with_(strategy=umbel.fed_avg(evaluate=umbel.evaluation(every=0)), rounds=2)
    models = [umbel.run(app, client, on=federation(), seed=1).model for app in (own, alike)]
    assert models[0].difference(models[1], atol=1e-6) == ""


def test_an_optimizer_remembers_from_round_to_round():
    """Adam's moments stay at the client, in ctx.state as arrays."""
    remembering = umbel.ClientApp()
    remembering.setup(setup)
    remembering.data(load)

    @remembering.train
    def train(model, ctx):
        net = umbel.torch.into(ctx.shared, model)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.003)
        restore(optimizer, ctx.state.get("adam"))
        loss = epoch(net, ctx.data, optimizer)
        ctx.state["adam"] = moments(optimizer)
        return umbel.Update(
            model=umbel.torch.arrays(net),
            weight=len(ctx.data),
            metrics={"loss": loss, "steps": ctx.state["adam"]["0.step"]},
        )

    everyone = server.with_(strategy=umbel.fed_avg(), rounds=3)
    result = umbel.run(everyone, remembering, on=federation(), seed=1)
    assert result.history["steps"].tolist() == pytest.approx([result.history["steps"][0] * r for r in (1, 2, 3)])


def moments(optimizer):
    """An optimizer's state as arrays."""
    state = optimizer.state_dict()["state"]
    return umbel.Arrays({f"{i}.{name}": value for i, own in state.items() for name, value in own.items()})


def restore(optimizer, kept):
    if kept is None:
        return
    saved = optimizer.state_dict()
    for key, value in kept.items():
        i, name = key.split(".")
        saved["state"].setdefault(int(i), {})[name] = torch.tensor(value)
    optimizer.load_state_dict(saved)


def test_a_main_of_ones_own_may_report_tensors(tmp_path):
    """In memory and on the disk alike; what hangs on a graph does not go into the history."""
    server = umbel.ServerApp(rounds=2)

    @server.main
    def main(fed):
        for r in fed.rounds():
            loss = torch.tensor(float(r), requires_grad=True)
            fed.commit({}, metrics={"loss": loss, "per class": torch.ones(2, dtype=torch.bfloat16)})

    for place in (None, tmp_path / "run"):
        result = umbel.run(server, client, on=umbel.Simulation(clients=2), dir=place)
        assert result.history["loss"].tolist() == [1, 2]
        assert result.history["per class"].shape == (2, 2)

"""FedBN: batch normalisation stays at each client, everything else is shared.

Source: Li et al., FedBN: Federated Learning on Non-IID Features via Local Batch Normalization, ICLR 2021.
https://arxiv.org/abs/2102.07623
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

from collections import OrderedDict

import numpy as np

import umbel
from tests.acceptance.programs.handwriting import accuracy, dataset, nn, sgd, torch


def net():
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(1, 8, 3),
            bn=nn.BatchNorm2d(8),
            act=nn.ReLU(),
            flat=nn.Flatten(),
            head=nn.Linear(288, 10),
        )
    )


client = umbel.ClientApp()


@client.setup
def setup(ctx):
    return net()


@client.data
def load(ctx):
    """Each client's scanner has another contrast."""
    images, labels = dataset[ctx.client.part]
    return torch.utils.data.TensorDataset(images * (1 + 3 * int(ctx.client.name)), labels)


@client.train
def train(model, ctx):
    net = umbel.torch.into(ctx.shared, model)
    loss = sgd(net, ctx.data, lr=0.02)
    ctx.state["variance"] = net.bn.running_var.numpy().copy()
    return umbel.Update(model=umbel.torch.arrays(net), weight=len(ctx.data), metrics={"loss": loss})


@client.evaluate
def evaluate(model, ctx):
    own = bool(np.array_equal(model["bn.running_var"], ctx.state["variance"]))
    net = umbel.torch.into(ctx.shared, model)
    return umbel.Metrics({"accuracy": accuracy(net, ctx.data), "own": own, "variance": model["bn.running_var"].mean()})


server = umbel.ServerApp(
    model=lambda: umbel.torch.arrays(net()),
    strategy=umbel.fed_avg(share=umbel.entries("*", but="*bn*")),
    rounds=5,
)


def test_normalisation_differs_between_clients_and_never_leaves_them():
    parts = umbel.partition.iid(400, clients=4, seed=1)
    initial = umbel.torch.arrays(net())
    result = umbel.run(server.with_(model=initial), client, on=umbel.Simulation(clients=parts), seed=1)

    clients = [record.metrics for record in result.clients.values()]
    assert [c["own"] for c in clients] == [1.0] * 4  # each evaluates with the statistics that it left
    assert len({c["variance"] for c in clients}) == 4
    assert np.mean([c["accuracy"] for c in clients]) > 0.6

    untouched = result.model.select("bn.*")  # what the server has are still the first values
    assert untouched.spec.entries != ()
    assert {e.role for e in untouched.spec.entries} == {"local"}
    assert all(np.array_equal(untouched[name], initial[name]) for name in untouched)

# fmt: off
# ruff: noqa: ARG001, N802
"""A convolutional network learns to read digits that a hundred clients hold: the whole program, on one screen."""
from types import SimpleNamespace

from sklearn.datasets import load_digits
from torch import nn, optim, stack, tensor
from torch.utils.data import DataLoader, Subset, TensorDataset

import umbel

images, labels = load_digits(return_X_y=True)
dataset = TensorDataset(tensor(images).float().view(-1, 1, 8, 8) / 16, tensor(labels))
public = Subset(dataset, range(1500, 1797))  # the server's own
def split(data, part): return SimpleNamespace(train=Subset(data, part[::2]), test=Subset(data, part[1::2]))
def Net(): return nn.Sequential(nn.Conv2d(1, 16, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
def accuracy(net, data): return stack([net(x).argmax(1) == y for x, y in DataLoader(data)]).float().mean()

def sgd(net, data, lr):
    optimizer = optim.SGD(net.parameters(), lr, momentum=0.9)
    for x, y in DataLoader(data, batch_size=2, shuffle=True):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
    return loss

client = umbel.ClientApp()

@client.setup
def setup(ctx):
    return Net()

@client.data
def load(ctx):
    return split(dataset, ctx.client.part)

@client.train
def train(model, ctx):
    net = umbel.torch.into(ctx.shared, model)
    loss = sgd(net, ctx.data.train, lr=ctx.config["lr"])
    return umbel.Update(model=umbel.torch.arrays(net), weight=len(ctx.data.train), metrics={"loss": loss})

@client.evaluate
def evaluate(model, ctx):
    net = umbel.torch.into(ctx.shared, model)
    return umbel.Metrics({"accuracy": accuracy(net, ctx.data.test)}, weight=len(ctx.data.test))

server = umbel.ServerApp(
    model=lambda: umbel.torch.arrays(Net()),
    strategy=umbel.fed_avg(cohort=umbel.sample.fraction(0.1), config={"lr": umbel.schedule.cosine(0.1, rounds=20)}),
    rounds=20,
)

@server.evaluate(every=5)
def test(model, ctx): return umbel.Metrics({"test": accuracy(umbel.torch.into(Net(), model), public)})

parts = umbel.partition.dirichlet(labels[:1500], clients=100, alpha=0.3, min_size=2, seed=1)
result = umbel.run(server, client, on=umbel.Simulation(clients=parts), seed=7)
result.model, result.history, result.plot()

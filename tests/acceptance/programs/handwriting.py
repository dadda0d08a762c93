"""Training code that was there before anything was federated: handwritten digits, and how a network learns them."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn
DataLoader = torch.utils.data.DataLoader

pixels, labels = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
dataset = torch.utils.data.TensorDataset(torch.tensor(pixels).float().view(-1, 1, 8, 8) / 16, torch.tensor(labels))


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(288, 10)
    )


def sgd(net, data, lr):
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    return epoch(net, data, optimizer)


def epoch(net, data, optimizer):
    net.train()
    total = 0.0
    for x, y in DataLoader(data, batch_size=8, shuffle=True, drop_last=True):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(x)
    return total / len(data)


@torch.no_grad()
def accuracy(net, data):
    net.eval()
    x, y = next(iter(DataLoader(data, batch_size=len(data))))
    return float((net(x).argmax(1) == y).float().mean())


def part(indexes):
    return torch.utils.data.Subset(dataset, indexes)

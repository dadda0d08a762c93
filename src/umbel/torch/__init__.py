"""PyTorch: modules to arrays and back, and local training that a strategy may correct.

    net = umbel.torch.into(net, model)      # the model's values into the module
    model = umbel.torch.arrays(net)         # the module's values as a model
    with umbel.torch.local(net, model, ctx) as local:   # both, around an unchanged training loop
        ...
    return local.update(weight=len(data))

    client.train(umbel.torch.local_sgd(Net, loss, lr=0.1, batch=10))   # instead of a loop: declared

Loaded on first touch of ``umbel.torch``; Umbel itself never imports PyTorch. Models in plain NumPy
need no adapter: a dict of arrays is a model (``umbel.Arrays({"w": w})``, ``umbel.Update(model={"w": w})``).
"""

from __future__ import annotations

from umbel.torch.declared import LocalSgd, local_sgd
from umbel.torch.module import arrays, into
from umbel.torch.training import Local, local

__all__ = ["Local", "LocalSgd", "arrays", "into", "local", "local_sgd"]

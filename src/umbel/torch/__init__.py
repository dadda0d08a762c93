"""PyTorch: modules to arrays and back, and local training that a strategy may correct.

    net = umbel.torch.into(net, model)      # the model's values into the module
    model = umbel.torch.arrays(net)         # the module's values as a model
    with umbel.torch.local(net, model, ctx) as local:   # both, around an unchanged training loop
        ...
    return local.update(weight=len(data))

Loaded on first touch of ``umbel.torch``; Umbel itself never imports PyTorch. Models in plain NumPy
need no adapter: a dict of arrays is a model (``umbel.Arrays({"w": w})``, ``umbel.Update(model={"w": w})``).
"""

from __future__ import annotations

from umbel.torch.module import arrays, into
from umbel.torch.training import Local, local

__all__ = ["Local", "arrays", "into", "local"]

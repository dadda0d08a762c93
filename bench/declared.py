"""What stacking clients brings: declared local training one by one and together, for modules of several sizes.

python bench/declared.py [torch|jax]    prints milliseconds of CPU per client, the best of several turns

The bounds in src/umbel/client/declared.py were set by this; see docs/adr/0019-declared-local-training.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import umbel
from umbel.client import declared
from umbel.client.context import ClientInfo
from umbel.client.work import Bench
from umbel.engine.question import Question

TURNS = 7
# inputs, hidden units or 0, samples, batch
CASES = [
    (784, 0, 20, 10),
    (784, 0, 100, 50),
    (64, 64, 20, 10),
    (256, 128, 20, 10),
    (784, 64, 20, 10),
    (784, 64, 512, 256),
    (256, 256, 64, 32),
    (784, 200, 20, 10),
    (784, 200, 100, 50),
    (784, 320, 20, 10),
    (784, 512, 20, 10),
    (1024, 1024, 20, 10),
]


def with_torch(inputs: int, hidden: int, batch: int) -> tuple[Any, umbel.Arrays]:
    import torch
    from torch import nn

    torch.set_num_threads(1)
    layers = [nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 10)] if hidden else [nn.Linear(inputs, 10)]
    net = nn.Sequential(*layers)
    return umbel.torch.local_sgd(net, nn.functional.cross_entropy, lr=0.1, batch=batch), umbel.torch.arrays(net)


def with_jax(inputs: int, hidden: int, batch: int) -> tuple[Any, umbel.Arrays]:
    import jax
    import jax.numpy as jnp

    def loss(params: Any, x: Any, y: Any) -> Any:
        if hidden:
            x = jax.nn.relu(x @ params["w0"] + params["b0"])
        logits = x @ params["w"] + params["b"]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()

    rng = np.random.default_rng(0)
    first = {"w0": rng.normal(size=(inputs, hidden)).astype(np.float32) / 30, "b0": np.zeros(hidden, np.float32)}
    last = {"w": rng.normal(size=(hidden or inputs, 10)).astype(np.float32) / 30, "b": np.zeros(10, np.float32)}
    return umbel.jax.local_sgd(loss, lr=0.1, batch=batch), umbel.Arrays((first if hidden else {}) | last)


def best(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(TURNS):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return min(times)


def measure(make: Callable[..., Any], case: tuple[int, int, int, int], width: int) -> tuple[float, float, int]:
    """Milliseconds per client one by one and together, and the bytes of its parameters."""
    inputs, hidden, samples, batch = case
    train, model = make(inputs, hidden, batch)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(width, samples, inputs)).astype(np.float32)
    y = rng.integers(0, 10, (width, samples))
    client = umbel.ClientApp()
    client.train(train)
    client.data(lambda ctx: (x[ctx.client.part], y[ctx.client.part]))
    bench, mean = Bench(client, seed=1), umbel.aggregate.mean()
    question = Question(
        kind="train", name="train", seed=1, round=1, call=1, model=model, aggregator=mean, expected=mean.expects(model)
    )
    clients = [ClientInfo(name=f"{i:03}", part=i) for i in range(width)]
    alone = best(lambda: [bench.do(question, c, {}) for c in clients])
    together = best(lambda: list(bench.do_many(question, clients, lambda _: {})))
    return alone / width * 1e3, together / width * 1e3, model.nbytes


def main(make: Callable[..., Any]) -> None:
    for module in [m for name, m in sys.modules.items() if name.startswith("umbel.")]:  # measure beyond the bounds
        for bound in ("PARAMETERS", "DATA"):
            if hasattr(module, bound):
                setattr(module, bound, 1 << 40)
    print("inputs hidden samples batch | MB of parameters | one by one | together, by width")
    for case in CASES:
        cells, alone, size = [], 0.0, 0
        for width in (8, 16, 32, declared.WIDEST):
            one, many, size = measure(make, case, width)
            alone = min(alone or one, one)
            cells.append(f"{width}: {many:.3f}")
        print(*case, f"| {size / 1e6:.3f} | {alone:.3f} | {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    framework = sys.argv[1] if len(sys.argv) > 1 else "torch"
    made = {"torch": with_torch, "jax": with_jax}[framework]
    made(2, 0, 1)
    main(made)

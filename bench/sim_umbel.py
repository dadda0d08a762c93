"""W1 to W5 of the yardsticks in Umbel, as its README writes a federation. Their runner finds it through engines.py.

Only public names of Umbel are used here.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import recorder
from workloads import bump, cohort, data, flatten, init_params, weight_of

import umbel

args = recorder.args(engine="processes", declared="", durable="")
w = args.w
client = umbel.ClientApp()

if w.kind == "train" and args.declared:
    import torch
    import torch_net

    @client.data
    def load(ctx: Any) -> Any:
        inputs, targets = data(w)
        cid = int(ctx.client.name)
        return torch.from_numpy(inputs[cid]), torch.from_numpy(targets[cid])

    client.train(
        umbel.torch.local_sgd(
            lambda: torch_net.build(w), torch.nn.functional.cross_entropy, lr=w.lr, batch=w.batch, shuffle=False
        )
    )

elif w.kind == "train":
    import torch_net

    @client.setup
    def setup(ctx: Any) -> Any:
        return torch_net.build(w)

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        net = umbel.torch.into(ctx.shared, model)
        cid = int(ctx.client.name)
        torch_net.train(w, net, cid)
        return umbel.Update(model=umbel.torch.arrays(net), weight=weight_of(w, cid))

elif w.kind == "bump":

    @client.train
    def add(model: Any, ctx: Any) -> umbel.Update:
        cid = int(ctx.client.name)
        return umbel.Update(model=model + bump(cid), weight=weight_of(w, cid))

else:

    @client.train
    def answer(model: Any, ctx: Any) -> umbel.Update:
        cid = int(ctx.client.name)
        return umbel.Update(model={"v": np.full(10, bump(cid), np.float32)}, weight=weight_of(w, cid))


recorder.mark("imported")


class Given(umbel.sample.Sampler):
    """The cohorts that all engines of the benchmark have."""

    def draw(self, population: Any, *, round: int, rng: Any) -> tuple[str, ...]:
        recorder.mark("start")
        return tuple(str(cid) for cid in cohort(w, round))


def ended(result: umbel.Result) -> None:
    recorder.mark("end")


server = umbel.ServerApp(
    model=init_params(w),
    strategy=umbel.fed_avg(cohort=Given()),
    rounds=w.rounds,
)
place = umbel.Simulation(
    clients=w.clients, engine=args.engine, workers=1 if args.engine == "inline" else args.workers, threads=args.threads
)
recorder.mark("ready")
with tempfile.TemporaryDirectory() as directory:
    kept = f"{directory}/run" if args.durable else None
    result = umbel.run(server, client, on=place, seed=1, callbacks=[ended], dir=kept)
recorder.finish(flatten(dict(result.model.items() if result.model is not None else [])))
print({name: round(seconds, 3) for name, seconds in result.timing.items()})

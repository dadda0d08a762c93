"""W1 to W5 of the simulation benchmarks in Umbel, as its README writes a federation.

Run by the runner of the yardsticks, which finds it through bench/engines.py.
"""

from __future__ import annotations

import recorder
from workloads import bump, cohort, flatten, init_params, weight_of

a = recorder.args(engine="processes")
w = a.w

import numpy as np  # noqa: E402

import umbel  # noqa: E402

client = umbel.ClientApp()

if w.kind == "train":
    import torch_net

    @client.setup
    def setup(ctx):
        return torch_net.build(w)

    @client.train
    def train(model, ctx):
        net = umbel.torch.into(ctx.shared, model)
        cid = int(ctx.client.name)
        torch_net.train(w, net, cid)
        return umbel.Update(model=umbel.torch.arrays(net), weight=weight_of(w, cid))

elif w.kind == "bump":

    @client.train
    def train(model, ctx):
        cid = int(ctx.client.name)
        return umbel.Update(model=model + bump(cid), weight=weight_of(w, cid))

else:

    @client.train
    def train(model, ctx):
        cid = int(ctx.client.name)
        return umbel.Update(model={"v": np.full(10, bump(cid), np.float32)}, weight=weight_of(w, cid))


recorder.mark("imported")


class Given(umbel.sample.Sampler):
    """The cohorts that every engine of the benchmark has."""

    def draw(self, population, *, round, rng):
        recorder.mark("start")
        return tuple(str(cid) for cid in cohort(w, round))


def ended(result):
    recorder.mark("end")


server = umbel.ServerApp(
    model=init_params(w),
    strategy=umbel.fed_avg(cohort=Given()),
    rounds=w.rounds,
)

if __name__ == "__main__":
    place = umbel.Simulation(
        clients=w.clients, engine=a.engine, **({"workers": a.workers} if a.engine == "processes" else {})
    )
    recorder.mark("ready")
    result = umbel.run(server, client, on=place, seed=1, callbacks=[ended])
    recorder.finish(flatten(dict(result.model.items())))

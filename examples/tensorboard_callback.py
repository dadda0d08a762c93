"""Send a run's metrics to TensorBoard: a callback is any object with on_round(result).

python examples/tensorboard_callback.py && tensorboard --logdir runs
"""

import sys

import numpy as np
from tensorboard.summary import Writer

import umbel


class TensorBoard:
    """Writes each round's numbers, with the round as the step."""

    def __init__(self, folder):
        self.writer = Writer(str(folder))

    def on_round(self, result):
        row = result.history[-1]
        for name, value in row.items():
            if name != "round" and np.ndim(value) == 0:
                self.writer.add_scalar(name, value, row["round"])
        self.writer.flush()


client = umbel.ClientApp()


@client.data
def load(ctx):
    x = ctx.rng.normal(size=(50, 3))
    return x, x @ np.array([1.0, 2.0, 3.0])


@client.train
def train(model, ctx):
    x, y = ctx.data
    w = model["w"] - ctx.config["lr"] * x.T @ (x @ model["w"] - y) / len(x)
    return umbel.Update(model={"w": w}, weight=len(x), metrics={"loss": np.mean((x @ w - y) ** 2)})


server = umbel.ServerApp(
    model={"w": np.zeros(3)},
    strategy=umbel.fed_avg(cohort=umbel.sample.fraction(0.5), config={"lr": 0.1}),
    rounds=10,
)


def main(folder):
    return umbel.run(server, client, on=umbel.Simulation(clients=10), seed=1, callbacks=[TensorBoard(folder)])


if __name__ == "__main__":
    print(main(sys.argv[1] if len(sys.argv) > 1 else "runs/example"))

"""Only some entries travel: a frozen base, and small trained matrices beside it (LoRA).

Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022. https://arxiv.org/abs/2106.09685
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import umbel
from tests.acceptance.programs.handwriting import labels, nn, part, sgd, torch


class Adapted(nn.Module):
    """A linear layer that stays as it is, and a trained change of rank 4."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(4, inputs) / inputs**0.5)
        self.lora_b = nn.Parameter(torch.zeros(outputs, 4))

    def forward(self, x):
        return self.base(x) + x @ self.lora_a.T @ self.lora_b.T


def pretrained():
    torch.manual_seed(0)  # as if it were loaded from a file: the same at every client
    return nn.Sequential(nn.Flatten(), Adapted(64, 64), nn.ReLU(), Adapted(64, 10))


client = umbel.ClientApp()


@client.setup
def setup(ctx):
    return pretrained()


@client.train
def train(model, ctx):
    net = umbel.torch.into(ctx.shared, model)
    data = part(ctx.client.part)
    loss = sgd(net, data, lr=0.1)
    return umbel.Update(model=umbel.torch.arrays(net, only="*.lora_*"), weight=len(data), metrics={"loss": loss})


@client.query("base")
def base(model, ctx):
    return umbel.Update(value=umbel.torch.arrays(ctx.shared, only="*.base.*"))


server = umbel.ServerApp(
    model=lambda: umbel.torch.arrays(pretrained(), only="*.lora_*"),
    strategy=umbel.fed_adam(lr=0.1, cohort=umbel.sample.count(4)),
    rounds=6,
)


def test_the_adapters_learn_and_the_base_stays():
    parts = umbel.partition.dirichlet(labels[:600], clients=8, alpha=1.0, seed=1)
    simulation = umbel.Simulation(clients=parts)
    with simulation:
        result = umbel.run(server, client, on=simulation, seed=1)
        assert set(result.model) == {"1.lora_a", "1.lora_b", "3.lora_a", "3.lora_b"}
        assert result.model.nbytes < 0.3 * umbel.torch.arrays(pretrained()).nbytes
        assert result.history["loss"][-1] < 0.8 * result.history["loss"][0]

        asked = umbel.ServerApp(rounds=1)

        @asked.main
        def main(fed):
            got = fed.query("base", cohort=umbel.sample.everyone())
            fed.commit({"base": got.mean})

        after = umbel.run(asked, client, on=simulation, seed=1).state["base"]
    assert after.difference(umbel.torch.arrays(pretrained(), only="*.base.*"), atol=1e-7) == ""

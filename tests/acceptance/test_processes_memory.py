"""What a worker does with the memory that its handlers let go of."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import pytest

import umbel

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, whose settings these are")
MANY = 500  # pages, which is far less than what the handler's arrays have


def test_it_keeps_it_for_the_next_task() -> None:
    """Given back to the system, it would come anew page by page, and each page takes a third of a microsecond."""
    client = umbel.ClientApp()

    @client.query("pages")
    def pages(model: None, ctx: Any) -> umbel.Update:
        import resource

        for _ in range(8):
            arrays = [np.ones(500_000, np.float32) for _ in range(8)]  # 16 MB, as a small CNN has in activations
            del arrays
        return umbel.Update(value={"pages": np.float64(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)})

    server = umbel.ServerApp(rounds=3)

    @server.main
    def main(fed: Any) -> None:
        for _ in fed.rounds():
            got = fed.query("pages", cohort=umbel.sample.everyone(), aggregator=umbel.aggregate.sum())
            fed.commit({"pages": [*(fed.state or {"pages": []})["pages"], float(got.sum["pages"])]})

    result = umbel.run(server, client, on=umbel.Simulation(clients=1, engine="processes", workers=1), seed=1)
    first, second, third = result.state["pages"]
    assert third - second < MANY
    assert first > 0

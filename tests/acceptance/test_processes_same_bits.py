"""Worker processes give the bits of the calling thread: with 1, 2 and 5 of them, whatever is federated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import umbel
from tests.acceptance.federations import CLIENTS, PLAIN, WITH_TORCH, Federation, outcome


@pytest.fixture(scope="module", params=[1, 2, 5])
def workers(request: pytest.FixtureRequest) -> Iterator[umbel.Simulation]:
    """A simulation whose workers stay, so that they import PyTorch once."""
    with umbel.Simulation(CLIENTS, engine="processes", workers=request.param) as on:
        yield on


def run(federation: Callable[[], Federation], on: umbel.Simulation, **arguments: Any) -> dict[str, Any]:
    server, client = federation()
    return outcome(umbel.run(server, client, on=on, seed=7, **arguments))


@pytest.mark.parametrize("federation", PLAIN)
def test_the_same_bits(federation: Callable[[], Federation], workers: umbel.Simulation) -> None:
    inline = run(federation, umbel.Simulation(CLIENTS, engine="inline"))
    assert run(federation, workers) == inline
    assert not any("has changed" in failure[-1] for failure in inline["failures"])


@pytest.mark.parametrize("federation", WITH_TORCH)
def test_the_same_bits_with_pytorch(federation: Callable[[], Federation], workers: umbel.Simulation) -> None:
    pytest.importorskip("torch", reason="needs torch")
    assert run(federation, workers) == run(federation, umbel.Simulation(CLIENTS, engine="inline"))

"""As in a notebook: a loop is already running, functions are redefined, results are looked at."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import umbel

server = umbel.ServerApp(model={"w": np.zeros(2)}, strategy=umbel.fed_avg(), rounds=3)


def make_client():
    client = umbel.ClientApp()

    @client.train
    def train(model, ctx):
        return umbel.Update(delta={"w": np.ones(2)}, metrics={"loss": 1 / ctx.round, "pair": [1.0, 2.0]})

    return client


def test_inside_a_running_loop():
    async def cell():
        return umbel.run(server, make_client(), on=umbel.Simulation(clients=3))

    assert asyncio.run(cell()).model["w"].tolist() == [3.0, 3.0]


def test_two_threads_cannot_share_the_random_generators(tmp_path):
    """Two cells at once, or a sweep in a pool of threads: refused, since neither run would have its own bits."""
    with ThreadPoolExecutor() as pool:
        client = umbel.ClientApp()

        @client.train
        def train(model, ctx):
            other = pool.submit(umbel.run, server, make_client(), on=umbel.Simulation(clients=3), dir=tmp_path / "run")
            assert "another thread of this process" in str(other.exception())
            return umbel.Update(model=model)

        assert umbel.run(server, client, on=umbel.Simulation(clients=1)).failures == ()
        assert not (tmp_path / "run").exists()


def test_what_a_cell_shows():
    result = umbel.run(server, make_client(), on=umbel.Simulation(clients=3), seed=5)
    assert "finished after 3 rounds" in repr(result)
    assert "seed=5" in repr(result)
    table = result.history.dataframe()
    assert table["loss"].tolist() == [1.0, 1 / 2, 1 / 3]
    assert table["round"].tolist() == [1, 2, 3]
    assert len(repr(result)) < 300

    figure = result.plot()
    (panel,) = figure.axes
    assert panel.get_title() == "loss"
    assert all(float(tick).is_integer() for tick in panel.get_xticks())
    assert figure._repr_png_().startswith(b"\x89PNG")  # what Jupyter asks for, be pyplot imported or not
    assert "<td>0.333333</td>" in result.history._repr_html_()


def test_a_handler_redefined_in_its_cell_is_told_how():
    client = make_client()
    with pytest.raises(umbel.UmbelError, match=r"already has a handler for 'train'(?s:.*)umbel\.ClientApp\(\)"):
        client.train(lambda model, _: umbel.Update(model=model))

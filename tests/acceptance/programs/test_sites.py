"""Settings of the data's owner, site by site: the server neither sets nor sees them."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np
import pytest

import umbel

client = umbel.ClientApp()


@client.data
def load(ctx):
    return np.loadtxt(ctx.site["file"], delimiter=ctx.site.get("delimiter", ","), ndmin=2)


@client.train
def train(model, ctx):
    if ctx.config.get("tamper"):
        ctx.site["file"] = "elsewhere.csv"
    return umbel.Update(model={"mean": ctx.data.mean(axis=0)}, weight=len(ctx.data))


server = umbel.ServerApp(model={"mean": np.zeros(2)}, strategy=umbel.fed_avg(), rounds=1)


@pytest.fixture
def sites(tmp_path):
    np.savetxt(tmp_path / "berlin.csv", [[1, 2], [3, 4]], delimiter=",")
    np.savetxt(tmp_path / "paris.txt", [[10, 20]], delimiter=";")
    return {
        "berlin": {"file": str(tmp_path / "berlin.csv")},
        "paris": {"file": str(tmp_path / "paris.txt"), "delimiter": ";"},
    }


def test_each_site_reads_its_own_file(sites):
    result = umbel.run(server, client, on=umbel.Simulation(clients=sites))
    assert result.model["mean"].tolist() == pytest.approx([14 / 3, 26 / 3])


def test_the_settings_are_the_owners(sites):
    tampering = server.with_(strategy=umbel.fed_avg(config={"tamper": True}))
    with pytest.raises(umbel.errors.QuorumMissed, match=r"'berlin'.*does not support item assignment"):
        umbel.run(tampering, client, on=umbel.Simulation(clients=sites))


def test_a_site_without_a_setting_is_named(sites):
    del sites["paris"]["file"]
    with pytest.raises(umbel.errors.QuorumMissed, match=r"'paris'.*data handler raised KeyError: 'file'"):
        umbel.run(server, client, on=umbel.Simulation(clients=sites))

"""What a node keeps while it runs, and for how long."""

from __future__ import annotations

import time
from pathlib import Path

from tests.unit.node.scripted import RUN, on_a_loop
from umbel.node.config import Limits, NodeConfig
from umbel.node.states import NodeStates
from umbel.node.workshop import Workshop


@on_a_loop
async def test_states_of_old_runs_go_while_the_node_runs(tmp_path: Path) -> None:
    """Not when it is started again, which may be in a year."""
    place = tmp_path / "own" / "states"
    states = NodeStates(place, keep=0, now=time.time)
    states.write(RUN, "berlin", 1, {"x": 1}, after=0)
    states.close()
    now = (place / f"{RUN}.sqlite").stat().st_mtime
    config = NodeConfig().with_(limits=Limits(states=100.0))
    shop = Workshop(config, [], tmp_path, environment={}, now=lambda: now)
    try:
        await shop.recovered()
        await shop.trim()
        assert list(place.iterdir())
        now += 101.0
        await shop.trim()
        assert list(place.iterdir()) == []
    finally:
        await shop.close()

"""A server lives for months: what it holds in memory does not grow with the runs that have ended."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import umbel
from tests.simulation.hands import PATIENCE, plain
from tests.simulation.network import federation
from umbel.arrays import Arrays

client = umbel.ClientApp()
_CONTAINERS = (dict, list, set, frozenset, deque, tuple)


@client.train
def train(model: Arrays, ctx: umbel.Context) -> umbel.Update:
    ctx.state["count"] = ctx.state.get("count", 0) + 1
    return umbel.Update(model={"w": model["w"] + 1.0}, weight=1)


def held(root: Any) -> dict[str, int]:
    """How much each container has that belongs to objects of ours, by its name."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", root)]
    members: Iterable[tuple[Any, Any]]
    for name, value in waiting:  # grows while it is walked
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, _CONTAINERS):
            sizes[name] = len(value)
            members = enumerate(value.values() if isinstance(value, dict) else value)
        elif type(value).__module__.startswith(("umbel.", "tests.")):
            members = _fields(value)
        else:
            continue
        waiting += [(f"{name}.{key}", member) for key, member in members]
    return sizes


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    names = [*vars(value)] if hasattr(value, "__dict__") else []
    names += [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    yield from ((name, getattr(value, name)) for name in names if hasattr(value, name))


def test_nothing_is_held_of_runs_that_have_ended(tmp_path: Path) -> None:
    async def story() -> None:
        async with federation(tmp_path, client, {"berlin": {}, "lyon": {}}) as (place, _):

            async def do(first: int, last: int) -> dict[str, int]:
                for number in range(first, last):
                    run = await place.submit(plain(rounds=2, min_nodes=2), key=str(number))
                    async with asyncio.timeout(PATIENCE):
                        assert (await place.ended(run)).status == "finished"
                return held(place)

            before = await do(0, 5)
            after = await do(5, 15)
            assert {name: size for name, size in after.items() if size > before.get(name, 0) + 5} == {}
            assert any(name.endswith("._unkept") for name in after), "it looks into the server"

    asyncio.run(story())

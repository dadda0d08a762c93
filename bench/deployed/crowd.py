"""D4: many nodes that have nothing to do: what they cost the server, and how soon all of them wake.

So many processes of nodes do not fit on one machine. These are links alone, some hundred in a process: each has its
key, its own TLS connection and its session, is subscribed, and stops at the task it gets.

python -m bench.deployed.crowd TICKET FIRST COUNT      is one of these processes
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from bench.deployed.federation import APP, Federation, Place
from bench.deployed.programs import Program, cpu_seconds, memory, python, until
from bench.deployed.rounds import TINY
from bench.figures import Figure
from umbel import wire
from umbel.apps.project import Project
from umbel.link.address import Address
from umbel.link.grpc_client import GrpcLink
from umbel.link.identity import Identity
from umbel.node.config import NodeConfig
from umbel.node.installed import InstalledApp

NODES = 5000
PROCESSES = 8
AT_ONCE = 16  # that connect at the same time, in each process
IDLE, SETTLED = 30.0, 5.0  # seconds; each pings once in the first
TO_CONNECT, TO_WAKE = 600.0, 60.0  # seconds


def crowd(directory: Path, nodes: int = NODES) -> Iterator[Figure]:
    """Measure memory, idle processors and waking."""
    raise_limit(nodes + 1000)
    with Federation(Place(directory)) as federation, ExitStack() as ended:
        before = memory(federation.server.pid)
        ticket = federation.ticket_for(nodes)
        shares = [nodes * (i + 1) // PROCESSES - nodes * i // PROCESSES for i in range(PROCESSES)]
        begin = time.monotonic()
        programs = []
        for i, share in enumerate(shares):
            command = python("bench.deployed.crowd", ticket, str(i * nodes), str(share))
            programs.append(ended.enter_context(Program(command)))
        for program in programs:
            program.wait_for('"connected"', TO_CONNECT)
        until(lambda: subscribed(federation.server) >= nodes, "that all are subscribed")
        yield Figure(
            figure="D4 nodes", value=nodes, unit="nodes", detail=f"connected in {time.monotonic() - begin:.0f} s"
        )
        time.sleep(SETTLED)
        each = (memory(federation.server.pid) - before) / nodes
        yield Figure(figure="D4 memory of a node", value=each / 1e3, unit="kB", budget=100)
        spent = cpu_seconds(federation.server.pid)
        time.sleep(IDLE)
        share_of_core = 100 * (cpu_seconds(federation.server.pid) - spent) / IDLE
        yield Figure(figure="D4 idle processor", value=share_of_core, unit="% of a core", budget=10)
        begun = submitted(federation, nodes)
        woken = [json.loads(program.wait_for('"woken"', TO_WAKE)[1])["woken"] for program in programs]
        note = "all have their task, from before the submission on"
        yield Figure(figure="D4 all woken", value=max(woken) - begun, unit="s", budget=10, detail=note)


def subscribed(server: Program) -> int:
    """How many nodes the server has heard of."""
    return sum('"node-connected"' in line for _, line in list(server.lines))


def submitted(federation: Federation, nodes: int) -> float:
    """Submit a run of all nodes, which the server will not end; gives the time before that, in seconds since 1970."""

    def follow() -> None:
        with suppress(Exception):  # the server is gone in the end
            federation.run(TINY, rounds=1, evaluate=False, nodes=nodes)

    begun = time.time()
    threading.Thread(target=follow, daemon=True).start()
    return begun


def raise_limit(files: int) -> None:
    """Let this process and those that it starts open so many files.

    Raises:
        RuntimeError: the system does not permit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= files:
        return
    if hard != resource.RLIM_INFINITY and hard < files:
        raise RuntimeError(f"{files} open files are needed and {hard} permitted: raise ulimit -n, or lower --nodes")
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


# --- one of the processes ------------------------------------------------------------------------------


async def be_nodes(ticket: str, first: int, count: int) -> None:
    """Connect so many nodes, tell when all are, and when all have a task."""
    app = InstalledApp.of(Project.find(APP)).with_handlers(("evaluate", "train"))
    offer = wire.OpenSessionRequest(
        program="bench", apps=[app.app.message()], slots=1, datasets=list(NodeConfig().data), time=time.time()
    )
    gate, here, woken = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(0), asyncio.Semaphore(0)
    address = Address.parse(ticket)

    async def node(number: int) -> None:
        link = GrpcLink(address, Identity.make(), f"node{number}", deadline=TO_CONNECT)
        async with gate:
            await link.enrol(wire.EnrolRequest(ticket=address.secret_text))
            await link.open(offer)
        notices = link.subscribe()
        here.release()
        async for notice in notices:
            if notice.HasField("task"):
                woken.release()

    nodes = [asyncio.ensure_future(node(first + i)) for i in range(count)]
    for said, reached in (("connected", here), ("woken", woken)):
        for _ in range(count):
            await reached.acquire()
        print(json.dumps({said: time.time()}))
    await asyncio.gather(*nodes)


if __name__ == "__main__":
    asyncio.run(be_nodes(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))

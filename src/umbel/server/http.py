"""The second port, for operators: is the server well, and what does it do? On loopback by default."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import final, get_args

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from umbel.errors import Unreachable
from umbel.link.address import target_of
from umbel.server.counts import Counts
from umbel.server.hub import Hub
from umbel.server.runs import Runs
from umbel.store.sql import ServerStore
from umbel.store.sql.values import Verdict

Family = GaugeMetricFamily | CounterMetricFamily


@final
class ServerCollector(Collector):
    """What Prometheus is told; looked up when it asks."""

    def __init__(self, store: ServerStore, hub: Hub, runs: Runs, counts: Counts, expires: Callable[[], float]) -> None:
        self._store, self._hub, self._runs, self._counts, self._expires = store, hub, runs, counts, expires

    def collect(self) -> Iterator[Family]:
        """The metrics as they are now."""
        nodes = list(self._hub.nodes.values())
        connected = sum(node.connected for node in nodes)
        yield GaugeMetricFamily("umbel_nodes_connected", "Nodes whose stream is open.", connected)
        working = sum(len(node.working) for node in nodes)
        yield GaugeMetricFamily("umbel_tasks_handed_out", "Tasks that nodes work on.", working)
        runs = GaugeMetricFamily("umbel_runs", "Runs by status.", labels=["status"])
        by_status = dict.fromkeys(("queued", "running", "waiting", "finished", "stopped", "failed"), 0)
        for run in self._store.runs(submissions=False):
            by_status[run.status] += 1
        for status, number in by_status.items():
            runs.add_metric([status], number)
        yield runs
        yield GaugeMetricFamily("umbel_disk_free_bytes", "Room on the disk of the blobs.", self._store.blobs.free())
        if expires := self._expires():
            yield GaugeMetricFamily(
                "umbel_authority_expires_seconds",
                "When the certificate authority expires, in Unix time.",
                expires,
            )
        answers = CounterMetricFamily("umbel_answers", "Answers of nodes, by what became of them.", labels=["verdict"])
        for verdict in get_args(Verdict):  # those of which there were none yet, too: what grows must begin somewhere
            answers.add_metric([verdict], self._counts.answers[verdict])
        yield answers
        moved = CounterMetricFamily("umbel_blob_bytes", "Bytes of blobs that were moved.", labels=["direction"])
        for direction in ("in", "out"):
            moved.add_metric([direction], self._counts.moved[direction])
        yield moved


def pages(
    store: ServerStore, hub: Hub, runs: Runs, counts: Counts, *, expires: Callable[[], float], ready: Callable[[], str]
) -> Starlette:
    """What the second port serves.

    Args:
        store: of the server.
        hub: the nodes.
        runs: the runs.
        counts: what was counted.
        expires: says when what nodes trust ends; 0: that is not known.
        ready: why the server cannot serve now; "" if it can.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServerCollector(store, hub, runs, counts, expires))

    async def healthz(request: Request) -> Response:
        """The process lives."""
        del request
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> Response:
        """It can serve."""
        del request
        reason = await asyncio.to_thread(ready)
        return JSONResponse({"status": reason or "ready"}, status_code=503 if reason else 200)

    async def metrics(request: Request) -> Response:
        """For Prometheus."""
        del request
        return Response(await asyncio.to_thread(generate_latest, registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)])


@final
class Pages:
    """Serves `pages` until it is closed.

    Args:
        app: what.
        host, port: where; port 0 takes a free one.
    """

    def __init__(self, app: Starlette, host: str, port: int) -> None:
        config = uvicorn.Config(app, host=host, port=port, log_config=None, access_log=False, lifespan="off")
        self._server = _Quiet(config)
        self._host, self._port = host, port
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Begin to serve; gives the port.

        Raises:
            Unreachable: the port is taken.
        """
        listening = self._listen()
        self._task = asyncio.create_task(self._server.serve([listening]), name="umbel-pages")
        started = asyncio.create_task(self._server.up.wait())
        await asyncio.wait([self._task, started], return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if self._task.done():
            self._task.result()
        port: int = listening.getsockname()[1]
        return port

    def _listen(self) -> socket.socket:
        """The socket; uvicorn itself would log that a port is taken, and end the process."""
        try:
            return socket.create_server(
                (self._host, self._port), family=socket.AF_INET6 if ":" in self._host else socket.AF_INET
            )
        except OSError as error:
            raise Unreachable(
                f"the pages for operators cannot be served on {target_of(self._host, self._port)}: {error.strerror}",
                advice="choose another place: --pages HOST:PORT",
            ) from error

    async def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


@final
class _Quiet(uvicorn.Server):
    """One that leaves signals to its process, and says when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    def install_signal_handlers(self) -> None:
        """None: older versions ask for it."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await self._serve(sockets)  # without the handlers of signals around it


__all__ = ["Pages", "ServerCollector", "pages"]

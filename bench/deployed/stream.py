"""The yardstick: a bare gRPC stream over TLS, in messages of 1 MiB, with nothing behind it.

python -m bench.deployed.stream KIND DIRECTORY      is the server; KIND is "aio" or "sync"
python -m bench.deployed.stream KIND DIRECTORY PORT BYTES      is the client, which prints what it found

DIRECTORY holds certificates as `umbel server` makes them, so that both sides encrypt alike.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from bench.deployed.programs import Program, python
from umbel.server.certificates import Authority

PIECE = bytes(1 << 20)
PATHS = {"down": "/bare/Down", "up": "/bare/Up", "cpu": "/bare/Cpu"}
SECONDS = 300.0
KINDS = ("aio", "sync")


@dataclass(frozen=True, slots=True)
class Moved:
    """What it takes to move bytes one way.

    Attributes:
        seconds: of time.
        cpu: seconds of both processes together.
    """

    seconds: float
    cpu: float


def bare_stream(directory: Path, size: int) -> dict[str, dict[str, Moved]]:
    """Move so many bytes there and back, with both kinds of gRPC; by kind, by direction."""
    found = {}
    Authority.open(directory, ["localhost"], time.time())  # made before two processes want it
    for kind in KINDS:
        with Program(python("bench.deployed.stream", kind, directory)) as server:
            port = json.loads(server.wait_for('"port"')[1])["port"]
            with Program(python("bench.deployed.stream", kind, directory, str(port), str(size))) as client:
                said = json.loads(client.wait_for('"down"', SECONDS)[1])
        found[kind] = {way: Moved(**said[way]) for way in ("down", "up")}
    return found


def fastest(found: Sequence[dict[str, dict[str, Moved]]], way: str) -> tuple[float, str]:
    """The median seconds of the faster kind, and which that is; of what `bare_stream` has found several times."""
    return min((statistics.median(moved[kind][way].seconds for moved in found), kind) for kind in KINDS)


# --- the server --------------------------------------------------------------------------------------


def handlers(methods: dict[str, Any]) -> Any:
    """The three calls, in bytes."""
    return grpc.method_handlers_generic_handler(
        "bare",
        {
            "Down": grpc.unary_stream_rpc_method_handler(methods["down"]),
            "Up": grpc.stream_unary_rpc_method_handler(methods["up"]),
            "Cpu": grpc.unary_unary_rpc_method_handler(methods["cpu"]),
        },
    )


def pieces(size: int) -> Iterator[bytes]:
    """So many bytes."""
    for at in range(0, size, len(PIECE)):
        yield PIECE[: size - at]


def spent() -> bytes:
    """CPU seconds of this process."""
    return str(time.process_time()).encode()


def serve_sync(credentials: grpc.ServerCredentials) -> None:
    """Serve until it is ended, with threads."""

    def down(body: bytes, _: Any) -> Iterator[bytes]:
        return pieces(int(body))

    def up(messages: Iterator[bytes], _: Any) -> bytes:
        return str(sum(len(message) for message in messages)).encode()

    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handlers({"down": down, "up": up, "cpu": lambda *_: spent()}),))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    print(json.dumps({"port": port}))
    server.wait_for_termination()


async def serve_aio(credentials: grpc.ServerCredentials) -> None:
    """Serve until it is ended, in an event loop."""

    async def down(body: bytes, context: Any) -> None:
        for piece in pieces(int(body)):
            await context.write(piece)

    async def up(messages: AsyncIterator[bytes], _: Any) -> bytes:
        size = 0
        async for message in messages:
            size += len(message)
        return str(size).encode()

    async def cpu(_body: bytes, _: Any) -> bytes:
        return spent()

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handlers({"down": down, "up": up, "cpu": cpu}),))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    print(json.dumps({"port": port}))
    await server.wait_for_termination()


# --- the client --------------------------------------------------------------------------------------


def calls(channel: Any) -> tuple[Any, Any, Any]:
    """The three calls, in bytes."""
    return channel.unary_stream(PATHS["down"]), channel.stream_unary(PATHS["up"]), channel.unary_unary(PATHS["cpu"])


def move_sync(channel: grpc.Channel, size: int) -> dict[str, Any]:
    """Move bytes there and back."""
    down, up, cpu = calls(channel)

    def both() -> float:
        return time.process_time() + float(cpu(b"", wait_for_ready=True))

    def moved_down() -> int:
        return sum(len(message) for message in down(str(size).encode()))

    def moved_up() -> int:
        return int(up(pieces(size)))

    before, found = both(), {}
    for way, move in (("down", moved_down), ("up", moved_up)):
        begin = time.perf_counter()
        got = move()
        seconds, after = time.perf_counter() - begin, both()
        assert got == size
        found[way], before = {"seconds": seconds, "cpu": after - before}, after
    return found


async def move_aio(channel: grpc.aio.Channel, size: int) -> dict[str, Any]:
    """Move bytes there and back."""
    down, up, cpu = calls(channel)
    end: Any = vars(grpc.aio)["EOF"]  # unknown to the stubs

    async def both() -> float:
        return time.process_time() + float(await cpu(b"", wait_for_ready=True))

    async def moved_down() -> int:
        call, got = down(str(size).encode()), 0
        while (message := await call.read()) is not end:
            got += len(message)
        return got

    async def moved_up() -> int:
        call = up()
        for piece in pieces(size):
            await call.write(piece)
        await call.done_writing()
        return int(await call)

    before, found = await both(), {}
    for way, move in (("down", moved_down), ("up", moved_up)):
        begin = time.perf_counter()
        got = await move()
        seconds, after = time.perf_counter() - begin, await both()
        assert got == size
        found[way], before = {"seconds": seconds, "cpu": after - before}, after
    return found


async def move_in_loop(where: str, credentials: grpc.ChannelCredentials, size: int) -> dict[str, Any]:
    """`move_aio`, with a channel of its own."""
    async with grpc.aio.secure_channel(where, credentials) as channel:
        return await move_aio(channel, size)


def main(kind: str, directory: Path, port: str = "", size: str = "") -> None:
    """Be the server or the client."""
    authority = Authority.open(directory, ["localhost"], time.time())
    if not port:
        server = grpc.ssl_server_credentials([(authority.key_pem, authority.certificate_pem)])
        asyncio.run(serve_aio(server)) if kind == "aio" else serve_sync(server)
        return
    where, trusted = (
        f"localhost:{port}",
        grpc.ssl_channel_credentials(ssl.DER_cert_to_PEM_cert(authority.authority_der).encode()),
    )
    if kind == "aio":
        found = asyncio.run(move_in_loop(where, trusted, int(size)))
    else:
        with grpc.secure_channel(where, trusted) as channel:
            found = move_sync(channel, int(size))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])

"""Strangers who only connect take no descriptor that the server needs for its files."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from typing import Any

import pytest

# A server that has few descriptors. It says its port; when it hears a word, whether it can open files.
PROGRAM = """
import asyncio, resource, sys
from umbel.link.dispatch import Dispatch
from umbel.link.grpc_server import serve
from umbel.link.sessions import Sessions

async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (96, 128))
    server = await serve(Dispatch(object(), sessions=Sessions()), address="127.0.0.1:0")
    print(server.port, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    files = [open("/dev/null") for _ in range(20)]
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)
    for file in files:
        file.close()
    await server.stop()

asyncio.run(main())
"""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # and empty settings


@pytest.mark.skipif(sys.platform == "win32", reason="there connections are no files")
def test_files_can_be_opened_whoever_connects() -> None:
    with ExitStack() as opened:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        server = opened.enter_context(subprocess.Popen([sys.executable, "-c", PROGRAM], text=True, **pipes))
        opened.callback(server.kill)
        assert server.stdout is not None
        port = int(server.stdout.readline())
        for _ in range(200):
            stranger = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
            with suppress(ConnectionError):  # it was let go
                stranger.sendall(PREFACE)
                stranger.recv(1)
        said, wrong = server.communicate("go\n")
        assert said.strip() == "128", wrong

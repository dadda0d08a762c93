"""What must hold on Linux, macOS and Windows alike, told by sockets, which end with a process everywhere."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.processes import PATIENCE, until

# Each client says that it is there, and goes on when it hears something; or never.
PROGRAM = """
import socket, sys
import numpy as np
import umbel

client = umbel.ClientApp()
port = int(sys.argv[1])

@client.train
def train(model, ctx):
    (ctx.scratch / "work").write_bytes(bytes(1000))
    with socket.create_connection(("127.0.0.1", port)) as meeting:
        kept = open(ctx.scratch / "work", "rb")
        if meeting.recv(1) == b"x":
            import os
            os._exit(5)
        kept.close()
    print("trained", ctx.client.name)
    return umbel.Update(model=model + np.float32(ctx.rng.random()))

if sys.argv[2] == "notebook":  # workers cannot print to such an object
    class Stream:
        def write(self, text): printed.append(text)
        def flush(self): pass
    printed, sys.stdout = [], Stream()
server = umbel.ServerApp({"w": np.zeros(int(sys.argv[3]), np.float32)}, umbel.fed_avg(rounds=umbel.rounds(quorum=0)), 2)
result = umbel.run(server, client, on=umbel.Simulation(2, engine="processes", workers=2), seed=1)
if sys.argv[2] == "notebook":
    sys.stdout = sys.__stdout__
    print("".join(printed), end="")
print(result.model.digest(), len(result.failures))
"""


class Meeting:
    """A running program, and the clients that are at work in its workers."""

    def __init__(self, place: Path, how: str = "plain", size: int = 1000) -> None:
        self.temporary = place / "tmp"
        self.temporary.mkdir()
        (place / "program.py").write_text(PROGRAM)
        self._door = socket.create_server(("127.0.0.1", 0))
        self._door.settimeout(PATIENCE)
        self.process = subprocess.Popen(
            [sys.executable, str(place / "program.py"), str(self._door.getsockname()[1]), how, str(size)],
            env={**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.temporary))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def meet(self) -> socket.socket:
        client, _ = self._door.accept()
        client.settimeout(PATIENCE)
        return client

    def end(self) -> str:
        said, _ = self.process.communicate(timeout=PATIENCE)
        self._door.close()
        until(lambda: not list(self.temporary.iterdir()), "the end of all files")
        return said

    def __enter__(self) -> Meeting:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def is_over(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
    finally:
        client.close()


def answer(meeting: Meeting, *answers: bytes) -> None:
    for word in answers:
        with meeting.meet() as client:
            client.sendall(word)


@pytest.mark.parametrize("how", ["plain", "notebook"])
@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_what_workers_do_and_print_arrives(tmp_path: Path, how: str, size: int) -> None:
    with Meeting(tmp_path, how, size) as meeting:
        answer(meeting, *4 * [b"g"])
        *said, result = meeting.end().splitlines()
    assert sorted(said) == ["trained 0", "trained 0", "trained 1", "trained 1"]
    assert result.endswith(" 0")


def test_workers_end_with_the_main_process(tmp_path: Path) -> None:
    with Meeting(tmp_path) as meeting:
        clients = [meeting.meet(), meeting.meet()]
        meeting.process.kill()
        assert all(map(is_over, clients))
        meeting.end()


def test_a_worker_that_ends_is_replaced(tmp_path: Path) -> None:
    with Meeting(tmp_path) as meeting:
        answer(meeting, b"x", b"g", b"g", b"g")
        assert meeting.end().splitlines()[-1].endswith(" 1")

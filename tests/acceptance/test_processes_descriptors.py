"""Closed standard streams, and limits on what a process may open: workers work, or an error says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.processes import PATIENCE
from umbel.simulation.member import Member
from umbel.simulation.pool import Pool

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs what POSIX has: descriptors, and limits on them")

RUN = """
import os, sys
import numpy as np
import umbel

client = umbel.ClientApp()

@client.train
def train(model, ctx):
    print("at work", flush=True)
    os.system("echo at work; echo at work >&2; cat")
    return umbel.Update(model=model + 1)

server = umbel.ServerApp({"w": np.zeros(3)}, umbel.fed_avg(), rounds=2)
result = umbel.run(server, client, on=umbel.Simulation(4, engine="processes", workers=2), seed=1)
assert not result.failures
assert result.model["w"].tolist() == [2, 2, 2]
os._exit(7)
"""

# Each number of open files in turn that does not suffice, up to the first that does.
FEW = """
import gc, os, resource
from umbel.errors import StoreError
from umbel.simulation.pool import Pool

def count():
    gc.collect()
    return len(os.listdir("/dev/fd"))

Pool(1, threads=1, limit=None).close(now=True)
before, (_, most), errors = count(), resource.getrlimit(resource.RLIMIT_NOFILE), []
for limit in range(before - 1, before + 100):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    try:
        Pool(1, threads=1, limit=None).close(now=True)
        break
    except StoreError as error:
        assert "ulimit -n" in str(error), error
        errors.append(error.what)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    assert count() == before, (limit, count(), before)
assert len(errors) > 10, errors
"""

SMALL = """
import resource
from umbel.errors import StoreError
from umbel.simulation.pool import Pool

resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    Pool(1, threads=1, limit=None)
except StoreError as error:
    assert "of shared memory cannot be had" in error.what, error
    assert "use fewer workers" in error.advice
else:
    raise AssertionError
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_are_closed(closed: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(RUN)
    command = f'exec "$0" "$1" {closed}'
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, str(program)],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout == ("at work\n" * 16 if ">&-" not in closed.split() else "")
    assert done.stderr == ("at work\n" * 8 if "2>&-" not in closed else "")


@pytest.mark.parametrize("program", [FEW, SMALL], ids=["open files", "memory"])
def test_a_limit_that_does_not_suffice_is_an_error_with_advice(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr


def test_an_interrupt_while_a_worker_starts_closes_each_descriptor_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_member: Member, _message: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Member, "send", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Pool(2, threads=1, limit=None)

from __future__ import annotations

import os
import sys
from contextlib import suppress

import pytest

from umbel import wire
from umbel.cli.nodeevents import NodeLines


@pytest.mark.parametrize("json", [False, True])
def test_a_node_works_on_when_nobody_reads_any_more_what_it_says(monkeypatch: pytest.MonkeyPatch, json: bool) -> None:
    """Its observer is told in the middle of a session, which would end with the error, and the node with it."""
    read, write = os.pipe()
    os.close(read)
    gone = open(write, "w")  # noqa: SIM115  # closing it fails
    monkeypatch.setattr(sys, "stdout", gone)
    lines = NodeLines(json=json)
    lines.connected(wire.OpenSessionResponse(program="umbel"))
    lines.disconnected("the server is away", 1.0)
    lines.revoked(wire.TaskId(run="ab" * 16, exchange=1), "the round is over")
    monkeypatch.undo()
    with suppress(BrokenPipeError):
        gone.close()

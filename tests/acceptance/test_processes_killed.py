"""Worker processes that are killed at drawn moments, and runs that are: the bits are those of one that nobody killed.

A worker is killed at a line of its code that is drawn, with the board's lock held perhaps; or from outside, by another.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import umbel
from tests.acceptance import test_resume
from tests.acceptance.federations import CLIENTS, Federation, noisy, outcome, queries, states
from tests.acceptance.processes import children, needs_proc

KILLS = 5


def die_at_line(count: int) -> None:
    """Kill this process at the line of the simulation's code that comes so many lines later."""
    left = [count]

    def on_line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return on_line

    def on_call(frame: FrameType, event: str, _: Any) -> Any:
        return on_line if "umbel/simulation/" in frame.f_code.co_filename else None

    sys.settrace(on_call)


def deadly(federation: Federation, place: str, seed: int) -> Federation:
    """The same federation, whose clients kill a few workers; each one once, in each round."""
    server, client = federation

    @client.use
    def deaths(model: Any, ctx: Any, call: Any) -> Any:
        drawn = random.Random(f"{seed} {ctx.client.name} {ctx.round}")
        marker = Path(place, f"{ctx.client.name}-{ctx.round}")
        if drawn.random() > 0.25 or len(list(Path(place).iterdir())) >= KILLS or marker.exists():
            return call(model, ctx)
        marker.touch()
        how = drawn.randrange(4)
        if how == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        elif how == 1:
            answer = call(model, ctx)
            mine = Path("/proc/self/cmdline").read_bytes()
            with suppress(OSError):  # it has just ended by itself
                others = [pid for pid in children(os.getppid()) if Path(f"/proc/{pid}/cmdline").read_bytes() == mine]
                os.kill(drawn.choice(others), signal.SIGKILL)
            return answer
        die_at_line(drawn.randrange(1, 150))
        return call(model, ctx)

    return server, client


@pytest.mark.parametrize("workers", [1, 2, 3])
@settings(max_examples=2)
@given(seed=st.integers(0, 10**6), federation=st.sampled_from([states, queries, lambda: noisy(200_000)]))
def test_workers_that_are_killed_change_nothing(workers: int, seed: int, federation: Any) -> None:
    needs_proc()
    with tempfile.TemporaryDirectory() as place:
        on = umbel.Simulation(CLIENTS, engine="inline")
        wanted = outcome(umbel.run(*federation(), on=on, seed=4))
        on = umbel.Simulation(CLIENTS, engine="processes", workers=workers)
        server, client = deadly(federation(), place, seed)
        assert outcome(umbel.run(server, client, on=on, seed=4)) == wanted


@settings(max_examples=2)
@given(data=st.data())
def test_a_run_with_workers_that_is_killed_ends_with_the_same_bits(data: st.DataObject) -> None:
    wanted = test_resume.undisturbed("strategy", 1, 5)
    lines = st.tuples(st.sampled_from(["line", "ctrl-c"]), st.integers(1, 6 * wanted["count"] // 5))
    outside = st.tuples(st.just("outside"), st.integers(1, 4))
    drawn = data.draw(st.lists(st.one_of(lines, outside).map(list), min_size=2, max_size=3))
    with tempfile.TemporaryDirectory() as directory:
        found = test_resume.run(program="strategy", every=1, rounds=5, dir=directory, deaths=drawn, workers=2)
    test_resume.same(found, wanted)


def test_a_main_of_ones_own_that_is_killed_over_and_over() -> None:
    wanted = test_resume.undisturbed("main", 1, 5)
    longer = [["line", wanted["count"] * part // 100] for part in (30, 70, 110)]
    with tempfile.TemporaryDirectory() as directory:
        found = test_resume.run(program="main", every=1, rounds=5, dir=directory, deaths=longer, workers=2)
    test_resume.same(found, wanted)

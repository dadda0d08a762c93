"""Whatever a client's code does to its worker process is a failure in the result, and the run goes on."""

# ruff: noqa: ARG005  # handlers take what they are given

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from tests.acceptance.processes import children, kill, needs_proc, until
from umbel.errors import QuorumMissed, RunError, UsageError

BAD = "c1"
Deed = Callable[[Any, Any], object]


def federate(deed: Deed, *, on: umbel.Simulation | None = None, rounds: int = 2, clients: int = 4) -> umbel.Result:
    """A run in which one client does something in every round."""
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        if ctx.client.name == BAD:
            deed(model, ctx)
        return umbel.Update(model=model + 1.0, weight=1)

    strategy = umbel.fed_avg(rounds=umbel.rounds(quorum=0.5))
    server = umbel.ServerApp(model={"w": np.zeros(5000)}, strategy=strategy, rounds=rounds)
    on = on or umbel.Simulation([f"c{i}" for i in range(clients)], engine="processes", workers=2)
    result = umbel.run(server, client, on=on, seed=1)
    assert result.model is not None
    assert result.history["folded"].sum() == clients * rounds - len(result.failures)
    assert result.model["w"][0] == rounds
    return result


def the_failure(result: umbel.Result) -> Any:
    assert [(f.client, f.round, f.kind) for f in result.failures] == [(BAD, 1, "train"), (BAD, 2, "train")]
    return result.failures[1]


def test_it_raises() -> None:
    def deed(model: Any, ctx: Any) -> None:
        raise LookupError("no such patient")

    failure = the_failure(federate(deed))
    assert failure.message == "its train handler raised LookupError: no such patient"
    assert 'raise LookupError("no such patient")' in failure.traceback
    assert __file__ in failure.traceback


def test_it_calls_sys_exit() -> None:
    def deed(model: Any, ctx: Any) -> None:
        sys.exit(3)

    assert the_failure(federate(deed)).message == "its train handler raised SystemExit: 3"


def test_it_ends_its_process() -> None:
    def deed(model: Any, ctx: Any) -> None:
        os._exit(3)

    assert "ended its process with status 3" in the_failure(federate(deed)).message


def test_it_raises_keyboard_interrupt() -> None:
    def deed(model: Any, ctx: Any) -> None:
        raise KeyboardInterrupt

    failure = the_failure(federate(deed))
    assert "ended its process with status 1" in failure.message
    assert "raise KeyboardInterrupt" in failure.traceback


def test_it_crashes() -> None:
    def deed(model: Any, ctx: Any) -> None:
        ctypes.string_at(0)

    failure = the_failure(federate(deed))
    assert "crashed its process (SIGSEGV)" in failure.message
    assert "ctypes.string_at(0)" in failure.traceback or f'File "{__file__}"' in failure.traceback


def test_it_writes_into_the_model_that_it_was_sent() -> None:
    def deed(model: Any, ctx: Any) -> None:
        ctypes.memset(model["w"].ctypes.data, 255, 8)

    assert "a write into the arrays that it was given" in the_failure(federate(deed)).message


def test_it_aborts() -> None:
    def deed(model: Any, ctx: Any) -> None:
        os.abort()

    assert "crashed its process (SIGABRT)" in the_failure(federate(deed)).message


@pytest.mark.parametrize("engine", ["processes", "auto"])
def test_it_hangs(engine: Any) -> None:
    def deed(model: Any, ctx: Any) -> None:
        while True:
            signal.pause()

    on = umbel.Simulation([f"c{i}" for i in range(4)], engine=engine, workers=2, limit=0.5)
    failure = the_failure(federate(deed, on=on))
    assert "took longer than 0.5 seconds" in failure.message
    assert f'File "{__file__}"' in failure.traceback


def test_it_hangs_in_c_and_holds_the_interpreter() -> None:
    def deed(model: Any, ctx: Any) -> None:
        ctypes.PyDLL(None).pause()

    on = umbel.Simulation([f"c{i}" for i in range(4)], engine="processes", workers=2, limit=0.5)
    assert "took longer than 0.5 seconds" in the_failure(federate(deed, on=on)).message


def test_it_is_killed_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By the system, say, for want of memory: its task is done again, and the run says so."""

    def deed(model: Any, ctx: Any) -> None:
        marker = tmp_path / str(ctx.round)
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    with caplog.at_level(logging.WARNING):
        assert federate(deed).failures == ()
    assert "was ended by SIGKILL while 'c1' was at work" in caplog.text
    assert "done again" in caplog.text


def test_it_is_killed_each_time() -> None:
    def deed(model: Any, ctx: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    assert "cost 3 worker processes their lives (SIGKILL)" in the_failure(federate(deed)).message


def test_it_closes_what_its_process_speaks_through() -> None:
    def deed(model: Any, ctx: Any) -> None:
        os.closerange(3, 256)

    assert {f.client for f in federate(deed).failures} <= {BAD}


def test_all_clients_crash() -> None:
    """Each one is a failure, and no end of the run by itself."""
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        if ctx.client.name != "0":
            os._exit(1)
        return umbel.Update(model=model)

    strategy = umbel.fed_avg(rounds=umbel.rounds(quorum=0.1))
    server = umbel.ServerApp(model={"w": np.zeros(3)}, strategy=strategy, rounds=1)
    result = umbel.run(server, client, on=umbel.Simulation(7, engine="processes", workers=2), seed=1)
    assert {f.client for f in result.failures} == {str(i) for i in range(1, 7)}


def test_it_prints_a_lot(capfd: pytest.CaptureFixture[str]) -> None:
    def deed(model: Any, ctx: Any) -> None:
        for i in range(3000):
            print(f"line {i} " + 50 * "x")
            print(f"error {i} " + 50 * "x", file=sys.stderr)

    assert federate(deed).failures == ()
    printed = capfd.readouterr()
    assert printed.out.count("line 2999 ") == 2
    assert printed.err.count("error 2999 ") == 2


def test_what_it_prints_comes_to_a_stream_of_this_process(capsys: pytest.CaptureFixture[str]) -> None:
    """As in a notebook, where sys.stdout is no file."""

    def deed(model: Any, ctx: Any) -> None:
        for i in range(3000):
            print(f"línea {i} " + 50 * "x")
        print("an error", file=sys.stderr)
        print("without an end of line", end="")

    assert federate(deed).failures == ()
    printed = capsys.readouterr()
    assert printed.out.count("línea 2999 ") == 2
    assert printed.out.count("without an end of line") == 2
    assert printed.err.count("an error") == 2


def test_it_starts_a_process_that_outlives_it(tmp_path: Path) -> None:
    needs_proc()

    def deed(model: Any, ctx: Any) -> None:
        other = subprocess.Popen(["sleep", "600"])
        (tmp_path / f"{ctx.round}-{other.pid}").touch()
        os._exit(4)

    assert "status 4" in the_failure(federate(deed)).message
    for name in tmp_path.iterdir():
        kill(int(name.name.rpartition("-")[2]))


def test_a_fork_of_it_outlives_it_and_holds_all_its_files(tmp_path: Path) -> None:
    """So that the end of the socket never comes; in the middle of a message, too."""
    needs_proc()

    def deed(model: Any, ctx: Any) -> None:
        if (pid := os.fork()) == 0:
            while True:
                signal.pause()
        (tmp_path / f"{ctx.round}-{pid}").touch()
        os.kill(os.getpid(), signal.SIGABRT)

    assert "SIGABRT" in the_failure(federate(deed)).message
    for name in tmp_path.iterdir():
        kill(int(name.name.rpartition("-")[2]))


def test_its_scratch_is_gone_whatever_became_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def deed(model: Any, ctx: Any) -> None:
        (ctx.scratch / "large").write_bytes(bytes(1000))
        if ctx.round == 1:
            os._exit(1)

    assert len(federate(deed).failures) == 1
    until(lambda: not [p for p in tmp_path.iterdir() if p.name.startswith("umbel")], "the end of scratch")


def test_large_states_and_questions_at_the_same_time() -> None:
    """Both sides send more than a socket holds, and neither waits for the other."""
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        if ctx.rng.random() < 0.3:
            raise ConnectionError
        ctx.state["many"] = np.ones(300_000)
        return umbel.Update(model=model)

    parts = [np.arange(200_000) for _ in range(12)]  # a spare is told of with its part
    strategy = umbel.fed_avg(cohort=umbel.sample.count(6), rounds=umbel.rounds(spare=6, quorum=0.5))
    server = umbel.ServerApp(model={"w": np.zeros(3)}, strategy=strategy, rounds=3)
    result = umbel.run(server, client, on=umbel.Simulation(parts, engine="processes", workers=3), seed=2)
    assert result.history["failed"].sum() > 0


def test_an_exchange_that_ends_early_leaves_workers_that_go_on(caplog: pytest.LogCaptureFixture) -> None:
    """A quorum that is out of reach ends a round while others wait for a state, or for room for an update."""
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        if ctx.client.name == "3" and ctx.round % 2:
            raise ConnectionError
        return umbel.Update(model=model + 1.0)

    strategy = umbel.fed_avg(rounds=umbel.rounds(on_miss="skip", quorum=1.0))
    server = umbel.ServerApp(model={"w": np.zeros(700_000)}, strategy=strategy, rounds=8)
    result = umbel.run(server, client, on=umbel.Simulation(9, engine="processes", workers=3), seed=2)
    assert result.model is not None
    assert result.model["w"][0] == 4.0
    assert "worker-lost" not in caplog.text


# --- an app that cannot be used ----------------------------------------------------------------------


def made(value: Any = None) -> tuple[umbel.ServerApp, umbel.ClientApp]:
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        assert value is value  # noqa: PLR0124  # it is captured
        return umbel.Update(model=model)

    return umbel.ServerApp(model={"w": np.zeros(2)}, strategy=umbel.fed_avg(), rounds=1), client


def test_a_module_that_workers_cannot_import(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("made_up_module")
    exec("def helper(): return 1", module.__dict__)
    monkeypatch.setitem(sys.modules, "made_up_module", module)
    server, client = made(module.helper)
    with pytest.raises(RunError, match=r"cannot load the client app: .*No module named 'made_up_module'") as raised:
        umbel.run(server, client, on=umbel.Simulation(2, engine="processes", workers=2), seed=1)
    assert "engine='inline'" in str(raised.value)


def test_a_path_that_grows_from_run_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that has something on it which is no text."""
    monkeypatch.setattr(sys, "path", [tmp_path, *sys.path])
    _, lazy = made()
    lazy.use(_imports_late)
    server, early = made()
    with umbel.Simulation(2, engine="processes", workers=1) as on:
        umbel.run(server, early, on=on, seed=1)
        with pytest.raises(QuorumMissed, match="No module named 'late_module'"):
            umbel.run(server, lazy, on=on, seed=1)
        (tmp_path / "late_module.py").write_text("def helper(): return 1\n")
        sys.path.insert(0, str(tmp_path))
        assert umbel.run(server, lazy, on=on, seed=1).history["folded"].tolist() == [2], "workers have it already"
        server, fresh = made(importlib.import_module("late_module").helper)
        assert umbel.run(server, fresh, on=on, seed=1).history["folded"].tolist() == [2]
    del sys.modules["late_module"]


def _imports_late(model: Any, ctx: Any, call: Any) -> Any:
    importlib.import_module("late_module")
    return call(model, ctx)


def test_what_cannot_be_sent_is_named() -> None:
    server, client = made(threading.Lock())
    with pytest.raises(UsageError, match=r"'value', which train uses, cannot be sent to a worker process: TypeError"):
        umbel.run(server, client, on=umbel.Simulation(2, engine="processes", workers=2), seed=1)


class Stubborn(umbel.transforms.Transform):
    """A transform that cannot be sent."""

    def __reduce__(self) -> Any:
        raise TypeError("it stays here")


def test_a_question_that_cannot_be_sent_is_an_error_that_says_so() -> None:
    _, client = made()
    server = umbel.ServerApp(model={"w": np.zeros(2)}, strategy=umbel.fed_avg().with_(Stubborn()), rounds=1)
    with pytest.raises(UsageError, match="what the clients are asked cannot be sent to a worker process: TypeError"):
        umbel.run(server, client, on=umbel.Simulation(2, engine="processes", workers=2), seed=1)


# --- one run after the other, and one within another ----------------------------------------------------


def test_workers_stay_from_run_to_run_and_all_state_with_them() -> None:
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        return umbel.Update(model=model + ctx.rng.random(), metrics={"pid": os.getpid()})

    def federation(size: int) -> umbel.ServerApp:
        return umbel.ServerApp(model={"w": np.zeros(size)}, strategy=umbel.fed_avg(), rounds=2)

    def pids(result: umbel.Result) -> set[float]:
        return {row["pid"] for row in result.history}

    with umbel.Simulation(1, engine="processes", workers=1) as on:
        first = [umbel.run(federation(3 + i), client, on=on, seed=i) for i in range(6)]
        again = [umbel.run(federation(3 + i), client, on=on, seed=i) for i in (0, 5, 1, 4, 2, 3)]
        assert len(set().union(*map(pids, [*first, *again]))) == 1, "one process did it all"
        for i, result in zip((0, 5, 1, 4, 2, 3), again, strict=True):
            assert result.model == first[i].model


def test_a_run_within_a_run_on_the_same_workers() -> None:
    server, client = made()
    on = umbel.Simulation(3, engine="processes", workers=2)
    found = []

    def callback(result: Any) -> None:
        found.append(umbel.run(server, client, on=on, seed=2).model)

    outer = umbel.run(server.with_(rounds=3), client, on=on, seed=1, callbacks=[callback])
    assert len(found) == 3
    assert outer.history["folded"].tolist() == [3, 3, 3]


def test_a_run_within_a_client() -> None:
    client = umbel.ClientApp()
    inner_server, inner_client = made()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        got = umbel.run(inner_server, inner_client, on=umbel.Simulation(2, engine="processes", workers=1), seed=1)
        return umbel.Update(model=model, metrics={"inner": float(got.history[-1]["folded"])})

    server = umbel.ServerApp(model={"w": np.zeros(2)}, strategy=umbel.fed_avg(), rounds=1)
    result = umbel.run(server, client, on=umbel.Simulation(2, engine="processes", workers=2), seed=1)
    assert result.history["inner"].tolist() == [2.0]


def test_two_simulations_side_by_side() -> None:
    server, client = made()
    with (
        umbel.Simulation(3, engine="processes", workers=1) as one,
        umbel.Simulation(2, engine="processes", workers=1) as two,
    ):
        for _ in range(2):
            assert umbel.run(server, client, on=one, seed=1).history["folded"].tolist() == [3]
            assert umbel.run(server, client, on=two, seed=1).history["folded"].tolist() == [2]


def test_after_an_interrupt_the_simulation_goes_on_with_new_workers() -> None:
    server, client = made()

    def interrupt(result: Any) -> None:
        raise KeyboardInterrupt

    with umbel.Simulation(3, engine="processes", workers=2) as on:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                umbel.run(server, client, on=on, seed=1, callbacks=[interrupt])
            assert umbel.run(server, client, on=on, seed=1).history["folded"].tolist() == [3]


def test_a_fork_of_the_main_process_leaves_the_workers_alone() -> None:
    """It neither keeps them alive nor ends them, and can have workers of its own."""
    needs_proc()
    server, client = made()
    with umbel.Simulation(3, engine="processes", workers=2) as on:
        umbel.run(server, client, on=on, seed=1)
        before = set(children())
        if (pid := os.fork()) == 0:
            code = 1
            try:
                on.__exit__(None, None, None)
                again = umbel.run(server, client, on=on, seed=1)
                code = 0 if again.history["folded"].tolist() == [3] else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert umbel.run(server, client, on=on, seed=1).history["folded"].tolist() == [3]
        assert set(children()) == before


def test_workers_that_are_killed_between_two_runs() -> None:
    needs_proc()
    server, client = made()
    with umbel.Simulation(3, engine="processes", workers=2) as on:
        before = set(children())
        umbel.run(server, client, on=on, seed=1)
        for pid in set(children()) - before:
            kill(pid)
        assert umbel.run(server, client, on=on, seed=1).history["folded"].tolist() == [3]


def test_nothing_stays_open_in_the_main_process() -> None:
    needs_proc()
    server, client = made()

    def state() -> tuple[int, int]:
        files = Path("/proc/self/fd")
        return len(list(files.iterdir())), len(list(Path("/proc/self/task").iterdir()))

    def go() -> None:
        federate(lambda model, ctx: os._exit(1))
        with umbel.Simulation(3, engine="processes", workers=2) as on:
            umbel.run(server, client, on=on, seed=1)

    go()
    gc.collect()
    before, children_before = state(), set(children())
    gc.disable()  # what is part of a cycle may stay for long, too
    try:
        go()
        until(lambda: state() <= before, "the end of files and threads")
    finally:
        gc.enable()
    assert set(children()) <= children_before

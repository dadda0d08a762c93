"""Where workers wake."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from umbel.simulation.cpus import woken_apart

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two CPUs"
)


@contextmanager
def waiting(count: int) -> Iterator[list[int]]:
    """So many processes that do nothing."""
    with ExitStack() as stack:
        made = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
            for _ in range(count)
        ]
        yield [process.pid for process in made]
        for process in made:
            process.kill()


def test_each_has_a_cpu_of_its_own_for_a_while() -> None:
    cpus = os.sched_getaffinity(0)
    with waiting(len(cpus) + 1) as processes:
        with woken_apart(processes):
            theirs = [os.sched_getaffinity(process) for process in processes]
        assert all(len(each) == 1 for each in theirs)
        assert set.union(*theirs[:-1]) == cpus
        assert [os.sched_getaffinity(process) for process in processes] == [cpus] * len(processes)


def test_fewer_than_there_are_cpus_are_left_alone() -> None:
    cpus = os.sched_getaffinity(0)
    with waiting(1) as processes, woken_apart(processes):
        assert os.sched_getaffinity(processes[0]) == cpus


def test_what_is_bound_elsewhere_or_gone_is_passed_over() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    with waiting(len(cpus)) as processes:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        os.sched_setaffinity(processes[0], {cpus[1]})
        with woken_apart([*processes, gone.pid]):
            assert os.sched_getaffinity(processes[0]) == {cpus[1]}
        assert os.sched_getaffinity(processes[0]) == {cpus[1]}


def test_a_worker_takes_no_cpu_from_others() -> None:
    code = "import os; from umbel.simulation.cpus import let_others_first as f; f(); print(os.sched_getscheduler(0))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(said.stdout) == os.SCHED_BATCH

from __future__ import annotations

import logging
import signal
import sys

import numpy as np
import pytest

from umbel.arrays import Arrays
from umbel.engine.question import Question
from umbel.errors import RunError
from umbel.simulation.deaths import Deaths, explain
from umbel.simulation.member import Died

QUESTION = Question(kind="train", name="train", seed=1, round=3, call=1, model=Arrays({"w": np.zeros(1)}))
KILLED = Died(-9, "", hello=True)

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")  # whose signals have names


def test_a_client_that_ends_its_process_is_to_blame() -> None:
    failure = Deaths(None).judge(Died(7, "", hello=True), QUESTION, "berlin", lost=1)
    assert failure is not None
    assert (failure.client, failure.round, failure.kind, failure.code) == ("berlin", 3, "train", "client-failed")
    assert failure.message == "its train handler ended its process with status 7: os._exit, or what it called"


@posix
@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"])
def test_a_client_that_crashes_its_process_is_to_blame(name: str) -> None:
    failure = Deaths(None).judge(Died(-getattr(signal, name), "a traceback", hello=True), QUESTION, "berlin", lost=1)
    assert failure is not None
    assert name in failure.message
    assert failure.traceback == "a traceback"


def test_a_client_that_crashes_its_process_on_windows_is_to_blame() -> None:
    failure = Deaths(None).judge(Died(0xC0000005, "", hello=True), QUESTION, "berlin", lost=1)
    assert failure is not None
    assert "crashed its process (0xc0000005)" in failure.message


def test_a_client_that_takes_too_long_is_to_blame() -> None:
    failure = Deaths(5).judge(Died(1, "Timeout (0:00:05)!\nThread", hello=True), QUESTION, "berlin", lost=1)
    assert failure is not None
    assert failure.message == "its train handler took longer than 5 seconds and was ended"


@posix
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_clients_that_kill_in_turn_fail_one_after_the_other(workers: int) -> None:
    """As many as workers may have taken; what each has cost is found out before it is said that all is lost."""
    deaths, clients = Deaths(None, workers=workers), [str(i) for i in range(2 * workers)]
    for client in 2 * clients:
        assert deaths.judge(KILLED, QUESTION, client, lost=1) is None
    failure = deaths.judge(KILLED, QUESTION, clients[0], lost=1)
    assert failure is not None
    assert failure.client == "0"


@posix
def test_who_is_killed_from_outside_is_asked_again_twice(caplog: pytest.LogCaptureFixture) -> None:
    deaths = Deaths(None)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert deaths.judge(KILLED, QUESTION, "berlin", lost=3) is None
            assert deaths.judge(KILLED, QUESTION, "paris", lost=1) is None
    assert "SIGKILL while 'berlin' was at work; 3 tasks are done again" in caplog.text
    assert "SIGKILL while 'paris' was at work; 1 task is done again" in caplog.text
    failure = deaths.judge(KILLED, QUESTION, "berlin", lost=1)
    assert failure is not None
    assert "cost 3 worker processes their lives (SIGKILL)" in failure.message


@posix
def test_deaths_without_an_answer_in_between_end_the_run() -> None:
    deaths = Deaths(None)
    for n in range(5):
        assert deaths.judge(KILLED, QUESTION, f"c{n}", lost=1) is None
    with pytest.raises(RunError, match="one after the other: the last one was ended by SIGKILL"):
        deaths.judge(KILLED, QUESTION, "c5", lost=1)
    deaths.none_since()
    assert deaths.judge(KILLED, QUESTION, "c6", lost=1) is None


def test_workers_that_cannot_start_end_the_run() -> None:
    deaths = Deaths(None)
    born_dead = Died(1, "ImportError: no numpy", hello=False)
    assert deaths.judge(born_dead, None, None, lost=0) is None
    with pytest.raises(RunError, match="ImportError: no numpy"):
        deaths.judge(born_dead, None, None, lost=0)


@posix
def test_a_death_in_words() -> None:
    assert explain(Died(3, "", hello=True)) == "ended with status 3"
    assert explain(KILLED) == "was ended by SIGKILL"
    assert explain(Died(-200, "", hello=True)) == "was ended by signal 200"

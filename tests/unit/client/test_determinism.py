"""`random` seeded late: in a process of its own, since the module is one for all."""

from __future__ import annotations

import subprocess
import sys

import pytest

LATE = """
import random, subprocess
import numpy as np
from numpy.random import default_rng
from umbel.client.determinism import seed_all, seed_late
wanted = {wanted}
for _ in range(2):
    seed_late()
    seed_all(lambda: 5)
    random.Random(3), random.SystemRandom, random.__name__  # none of which is the one generator
    np.random.default_rng(3), np.random.RandomState(3), np.random.__name__
    assert type(random) is type(np.random) is not type(subprocess)
    seed_all(lambda: 77)
    {take}
    wanted.seed(77)
    assert {drawn} == {expected}
    assert type({module}) is type(subprocess)
    assert type({other}) is not type(subprocess)
    seed_all(lambda: 78)  # at once, from now on
    wanted.seed(78)
    assert {module}.random() == wanted.random()
"""


@pytest.mark.parametrize(
    ("take", "drawn", "expected"),
    [
        ("", "random.random()", "wanted.random()"),
        ("", "random.getrandbits(70)", "wanted.getrandbits(70)"),
        ("", "random.sample(range(1000), 10)", "wanted.sample(range(1000), 10)"),
        ("", "random.getstate()", "wanted.getstate()"),
        ("", "vars(random)['random']()", "wanted.random()"),
        ("from random import gauss", "gauss(0, 1)", "wanted.gauss(0, 1)"),
        ("taken = random.shuffle; a = [*range(9)]; taken(a)", "a", "wanted.shuffle(b := [*range(9)]) or b"),
    ],
)
def test_what_is_drawn_late_is_what_would_have_been_drawn(take: str, drawn: str, expected: str) -> None:
    _run(take, drawn, expected, wanted="random.Random()", module="random", other="np.random")


@pytest.mark.parametrize(
    ("take", "drawn", "expected"),
    [
        ("", "np.random.rand()", "wanted.random_sample()"),
        ("", "np.random.mtrand.rand()", "wanted.random_sample()"),
        ("", "np.random.mtrand._rand.rand()", "wanted.random_sample()"),
        ("from numpy.random import normal", "normal()", "wanted.normal()"),
        ("from numpy.random.mtrand import normal", "normal()", "wanted.normal()"),
        ("", "vars(np.random)['rand']()", "wanted.random_sample()"),
    ],
)
def test_what_numpy_draws_late_is_what_it_would_have_drawn(take: str, drawn: str, expected: str) -> None:
    _run(take, drawn, expected, wanted="np.random.RandomState()", module="np.random", other="random")


def _run(take: str, drawn: str, expected: str, **names: str) -> None:
    program = LATE.format(take=take or "pass", drawn=drawn, expected=f"({expected})", **names)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_function_taken_before_the_first_task_is_seeded_for_each() -> None:
    program = """
import random
from umbel.client.determinism import seed_all, seed_late
seed_late()
from random import random as draw  # as a user's module does
for key in (5, 6):
    seed_all(lambda: key)
    assert draw() == random.Random(key).random()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from umbel.recipe import changed_code, code_digest, differences, write_recipe

PROGRAM = """
import dataclasses, functools, json, sys
import numpy as np
import umbel
from umbel.recipe import write_recipe

RATES = (0.1, 0.2)
seen = []


def helper(x):
    return x in {"alpha", "beta", "gamma", ("delta", 1)} and RATES


class Trainer:
    sizes = {3, 1, 2}

    def __init__(self, lr):
        self.lr, self.cache = lr, object()

    def __call__(self, model, ctx):
        self.cache = helper(model)
        return [x for x in {"u", "v", "w"} if x]

    def evaluate(self, model, ctx):
        return {name: object() for name in {"one", "two", "three"}}


def make(lr):
    table = {"a", "b", "c"}

    def query(model, ctx, *, scale=frozenset({"x", "y"})):
        return lr * len(table)

    return query


@dataclasses.dataclass
class Rule:
    names: set

    def __call__(self, values, weights):
        return values.mean()


client = umbel.ClientApp()
client.train(Trainer(0.1))
client.evaluate(Trainer(0.2).evaluate)
client.query("closure")(make(0.3))
client.query("partial")(functools.partial(make(0.4), scale=2))
client.use(lambda model, ctx, call: call(model, ctx))
server = umbel.ServerApp(
    model=lambda: {"w": np.zeros(2)},
    strategy=umbel.fed_avg(
        config={"rates": [0.1, 0.2], "table": np.arange(3)},
        metrics={"a": Rule({"p", "q", "r"}), "b": lambda values, weights: values.max(), "c": np.median},
    ),
)
server.evaluate(every=2)(functools.partial(lambda model, ctx, names: None, names={"x", "y", "z"}))
place = umbel.Simulation(clients={n: {"tags": {"k", "l", "m"}, "path": object} for n in "abc"}).recipe()
recipe = write_recipe(server, client, place, seed=1, rounds=3, initial=server.initial_model())
print(json.dumps(recipe, sort_keys=True))
"""


def test_a_recipe_is_the_same_in_every_process(tmp_path: Path) -> None:
    """Whatever the seed of Python's hashes, wherever the program lies and its objects are."""
    texts = set()
    for seed in range(4):
        (tmp_path / str(seed)).mkdir()
        program = tmp_path / str(seed) / "program.py"
        program.write_text("\n" * seed + PROGRAM)
        done = subprocess.run(
            [sys.executable, program],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        texts.add(done.stdout)
    (text,) = texts
    assert "0x" not in text
    assert str(tmp_path) not in text


# --- code ------------------------------------------------------------------------------------------

RATE = 0.1
assigned = 0


def helper(x: float) -> float:
    return x * 2


def source(text: str, name: str = "f", **names: Any) -> Callable[..., Any]:
    """A function of the user's, from its text."""
    space = {"__name__": "__main__", "np": np, "functools": functools, **names}
    exec(compile(text, "program.py", "exec"), space)
    found: Callable[..., Any] = space[name]
    return found


SAME = [
    ("def f(x):\n    return x + 1", "\n\n# a comment\ndef f(x):\n\n    return x + 1  # and another"),
    ('def f(x):\n    """Old words."""\n    return x', 'def f(x):\n    """New words."""\n    return x'),
    ("results = []\ndef f(x):\n    results.append(x)", "results = [1, 2]\ndef f(x):\n    results.append(x)"),
    ("n = 0\ndef f(x):\n    global n\n    n += 1", "n = 7\ndef f(x):\n    global n\n    n += 1"),
    ("def f(x):\n    return x in {'a', 'b', 'c'}", "def f(x):\n    return x in {'c', 'b', 'a'}"),
]
OTHER = [
    ("def f(x):\n    return x + 1", "def f(x):\n    return x + 2"),
    ("def f(x):\n    return x + 1", "def f(x):\n    return x - 1"),
    ("def f(x):\n    return 1.0", "def f(x):\n    return 1"),
    ("def f(x, n=1):\n    return n", "def f(x, n=2):\n    return n"),
    ("def f(x, *, n=1):\n    return n", "def f(x, *, n=2):\n    return n"),
    ("def g(): return 1\ndef f(x):\n    return g()", "def g(): return 2\ndef f(x):\n    return g()"),
    ("lr = 0.1\ndef f(x):\n    return lr", "lr = 0.2\ndef f(x):\n    return lr"),
    ("n = 10**5000\ndef f(x):\n    return n", "n = 10**5000 + 1\ndef f(x):\n    return n"),
    ("def f(x):\n    return x % (1 << 20000)", "def f(x):\n    return x % (1 << 20001)"),
    ("lrs = (0.1, 1)\ndef f(x):\n    return lrs", "lrs = (0.1, 2)\ndef f(x):\n    return lrs"),
    (
        "def make(lr):\n    def f(x): return lr\n    return f\nf = make(1)",
        "def make(lr):\n    def f(x): return lr\n    return f\nf = make(2)",
    ),
    (
        "def g(x, n): return n\nf = functools.partial(g, n=1)",
        "def g(x, n): return n\nf = functools.partial(g, n=2)",
    ),
    (
        "class T:\n    def g(self): return 1\n    def f(self, x): return self.g()\nf = T().f",
        "class T:\n    def g(self): return 2\n    def f(self, x): return self.g()\nf = T().f",
    ),
    (
        "class T:\n    def __init__(self, n): self.n = n\n    def __call__(self, x): return self.n\nf = T(1)",
        "class T:\n    def __init__(self, n): self.n = n\n    def __call__(self, x): return self.n\nf = T(2)",
    ),
    (
        "class B:\n    n = 1\nclass T(B):\n    def f(self, x): return self.n\nf = T().f",
        "class B:\n    n = 2\nclass T(B):\n    def f(self, x): return self.n\nf = T().f",
    ),
    (
        "def d(g):\n    @functools.wraps(g)\n    def h(x): return g(x)\n    return h\n@d\ndef f(x): return 1",
        "def d(g):\n    @functools.wraps(g)\n    def h(x): return g(x)\n    return h\n@d\ndef f(x): return 2",
    ),
    (
        "@functools.lru_cache\ndef f(x): return 1",
        "@functools.lru_cache\ndef f(x): return 2",
    ),
    (
        "def f(x):\n    return [g(1) for g in (lambda y: y + 1,)]",
        "def f(x):\n    return [g(1) for g in (lambda y: y + 2,)]",
    ),
]


@pytest.mark.parametrize(("before", "now"), SAME)
def test_code_that_does_the_same(before: str, now: str) -> None:
    assert code_digest(source(before)) == code_digest(source(now))


@pytest.mark.parametrize(("before", "now"), OTHER)
def test_code_that_does_something_else(before: str, now: str) -> None:
    assert code_digest(source(before)) == code_digest(source(before))
    assert code_digest(source(before)) != code_digest(source(now))


def test_an_object_that_counts_its_calls_stays_the_same() -> None:
    text = (
        "class T:\n    def __init__(self): self.n = 0\n"
        "    def __call__(self, x):\n        self.n += 1\n        return x\n"
        "f = T()"
    )
    counter = source(text)
    before = code_digest(counter)
    counter(1)
    assert code_digest(counter) == before


def test_functions_that_call_each_other_are_read() -> None:
    text = "def f(x): return g(x)\ndef g(x): return f(x)"
    assert code_digest(source(text)) == code_digest(source(text))
    assert code_digest(source(text)) != code_digest(source(text.replace("g(x): return f(x)", "g(x): return f(x) + 1")))


def test_installed_code_stands_as_its_name() -> None:
    assert code_digest(np.median) == code_digest(np.median)
    assert code_digest(np.median) != code_digest(np.mean)
    assert code_digest(json.dumps) != code_digest(json.loads)
    assert code_digest(max) != code_digest(min)


# --- differences -----------------------------------------------------------------------------------


def recipe_of(strategy: Any, client: umbel.ClientApp | None = None, **changes: Any) -> Any:
    server = umbel.ServerApp(model={"w": np.zeros(2)}, strategy=strategy)
    given: dict[str, Any] = {"seed": 1, "rounds": 3, "initial": server.initial_model(), **changes}
    recipe = write_recipe(server, client or umbel.ClientApp(), {"threads": 1}, **given)
    return json.loads(json.dumps(recipe))


def test_the_same_program_has_no_differences() -> None:
    strategy = umbel.fed_avg(config={"a": (1, 2), "b": np.arange(3), "c": b"bytes"})
    assert differences(recipe_of(strategy), recipe_of(strategy)) == []


def test_a_difference_says_where_and_what() -> None:
    before = recipe_of(umbel.fed_avg(config={"lr": 0.1, "old": 1}))
    now = recipe_of(umbel.fed_avg(config={"lr": 0.2, "new": [1]}), seed=2)
    assert differences(before, now) == [
        "seed: 1 before, 2 now",
        "strategy.config.lr: 0.1 before, 0.2 now",
        "strategy.config.old: 1 before, None now",
        "strategy.config.new: None before, [1] now",
    ]


def test_functions_of_the_strategy_are_code() -> None:
    def with_(function: Any) -> Any:
        return recipe_of(umbel.fed_avg(metrics={"loss": function}))

    names = changed_code(with_(source("def f(v, w): return v.max()")), with_(source("def f(v, w): return v.min()")))
    assert names == ["strategy.metrics['loss'].function"]


def test_handlers_are_code_by_their_name() -> None:
    def with_(text: str) -> Any:
        client = umbel.ClientApp()
        client.train(source(text))
        client.query("q")(source(text))
        return recipe_of(umbel.fed_avg(), client)

    texts = "def f(model, ctx): return 1", "def f(model, ctx): return 2"
    assert changed_code(with_(texts[0]), with_(texts[1])) == ["client.query('q')", "client.train"]
    assert changed_code(with_(texts[0]), {**with_(texts[1]), "python": "another 3.99"}) == []


def test_rounds_and_code_are_no_part_of_what_must_be_the_same() -> None:
    assert differences(recipe_of(umbel.fed_avg()), recipe_of(umbel.fed_avg(), rounds=9)) == []

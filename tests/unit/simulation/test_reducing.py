from __future__ import annotations

import functools
import random
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import numpy as np
import pytest

import umbel
from umbel.errors import UsageError
from umbel.simulation.shipping import pack, pack_app, unpack


def of_main(code: str, name: str = "__main__") -> dict[str, Any]:
    """What a program defines."""
    names: dict[str, Any] = {"__name__": name, "functools": functools}
    exec(textwrap.dedent(code), names)
    return names


def sent(value: Any) -> Any:
    """A value as it arrives in a worker."""
    return unpack(pack(value, lambda _: 0), lambda *_: np.zeros(0, np.uint8))


# --- caches and dispatchers ------------------------------------------------------------------


def test_a_cached_function_of_the_program_arrives_with_an_empty_cache() -> None:
    names = of_main(
        """
        @functools.lru_cache(maxsize=7, typed=True)
        def dataset(size=3):
            "What it is."
            return [size]

        def train():
            return dataset()

        def evaluate():
            return dataset()
        """
    )
    names["dataset"].note = "mine"
    kept = names["train"]()
    train, evaluate, dataset = sent([names["train"], names["evaluate"], names["dataset"]])
    assert dataset.cache_info().currsize == 0
    assert train() == [3]
    assert train() is evaluate() is dataset(), "it is one function"
    assert train() is not kept
    assert dataset.cache_parameters() == {"maxsize": 7, "typed": True}
    assert (dataset.__name__, dataset.__module__, dataset.__doc__) == ("dataset", "__main__", "What it is.")
    assert dataset.note == "mine"


def test_a_cached_function_that_calls_itself() -> None:
    names = of_main(
        """
        @functools.cache
        def fib(n):
            return n if n < 2 else fib(n - 1) + fib(n - 2)
        """
    )
    fib = sent(names["fib"])
    assert fib(50) == 12586269025
    assert fib.cache_info().currsize == 51
    assert fib.__wrapped__.__globals__["fib"] is fib
    assert (fib.__name__, fib.__qualname__) == ("fib", "fib")


def test_a_cached_method_of_a_class_of_the_program() -> None:
    names = of_main(
        """
        class Table:
            @functools.lru_cache
            def row(self):
                return [self]

        table = Table()
        """
    )
    table = sent(names["table"])
    assert table.row() is table.row()
    assert table.row()[0] is table


def test_a_cached_property_of_a_class_of_the_program() -> None:
    names = of_main(
        """
        class Table:
            @functools.cached_property
            def rows(self):
                "All."
                return [Table, self]

        table = Table()
        """
    )
    table = sent(names["table"])
    assert table.rows is table.rows
    assert table.rows[1] is table
    assert vars(table).keys() == {"rows"}
    assert type(table).rows.__doc__ == "All."


@functools.cache
def here() -> object:
    return object()


def test_a_cached_function_of_a_module_goes_by_its_name() -> None:
    assert sent(here) is here


def test_a_cached_function_within_a_function() -> None:
    bound = functools.lru_cache(functools.partial(max, 3))
    assert sent(bound)(5) == 5


def test_what_a_cached_function_uses_is_named_if_it_cannot_be_sent() -> None:
    names = of_main(
        """
        @functools.cache
        def dataset():
            return lock

        def train(model, ctx):
            return dataset()
        """
    )
    names["lock"] = threading.Lock()
    client = umbel.ClientApp()
    client.train(names["train"])
    with pytest.raises(UsageError, match="'lock', which dataset uses, cannot be sent"):
        pack_app(client)


def test_a_generic_function_of_the_program() -> None:
    names = of_main(
        """
        @functools.singledispatch
        def size(x):
            "How large."
            return 1

        @size.register
        def _(x: list):
            return sum(size(i) for i in x)

        class Other:
            @functools.singledispatchmethod
            def what(self, x):
                return "something"

            @what.register
            def _(self, x: int):
                return "a number"

        @size.register
        def _(x: Other):
            return 10
        """
    )
    size, other = sent([names["size"], names["Other"]()])
    assert size([1, [2, other]]) == 12
    assert (size.__name__, size.__doc__, set(size.registry)) == ("size", "How large.", {object, list, type(other)})
    assert (other.what(2), other.what("2")) == ("a number", "something")


@functools.singledispatch
def general(x: Any) -> Any:
    return x


def test_a_generic_function_of_a_module_goes_by_its_name() -> None:
    assert sent(general) is general


# --- generators ------------------------------------------------------------------------------


def test_the_generators_that_all_share_go_by_name() -> None:
    for shared in (random._inst, np.random.mtrand._rand):
        assert sent(shared) is shared
    assert sent(random.shuffle).__self__ is random._inst
    assert sent(np.random.randn).__self__ is np.random.mtrand._rand
    own = random.Random(3), np.random.RandomState(3), np.random.default_rng(3)
    copies = sent(own)
    assert all(copy is not mine for copy, mine in zip(copies, own, strict=True))
    assert (copies[0].random(), copies[1].rand()) == (own[0].random(), own[1].rand())


def test_that_of_torch_goes_by_name_too() -> None:
    torch = pytest.importorskip("torch")
    assert sent(torch.default_generator) is torch.default_generator
    own = torch.Generator().manual_seed(7)
    assert sent(own).initial_seed() == 7


@pytest.mark.parametrize("name", ["random.random", "random.randint", "np.random.randn", "np.random.mtrand._rand"])
def test_one_that_arrives_counts_as_touched(name: str) -> None:
    """Else a worker would not seed it."""
    code = f"""
        import random, sys, types, numpy as np
        from umbel.client.determinism import seed_late, seeds_at_once
        from umbel.simulation.shipping import pack, unpack
        data = pack({name}, None)
        seed_late()
        assert not seeds_at_once()
        unpack(data, None)
        assert seeds_at_once()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- the program in a process of multiprocessing ---------------------------------------------


def test_functions_of_a_program_that_multiprocessing_has_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("__mp_main__")
    module.__dict__.update(of_main("class Thing: pass\ndef train(): return Thing()", "__mp_main__"))
    monkeypatch.setitem(sys.modules, "__mp_main__", module)
    data = pack([module.train, module.Thing], lambda _: 0)
    assert not cloudpickle.list_registry_pickle_by_value()
    monkeypatch.delitem(sys.modules, "__mp_main__")
    train, thing = unpack(data, lambda *_: np.zeros(0, np.uint8))
    assert type(train()) is thing


def test_what_the_user_has_registered_stays_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("__mp_main__")
    monkeypatch.setitem(sys.modules, "__mp_main__", module)
    cloudpickle.register_pickle_by_value(module)
    try:
        pack_app(umbel.ClientApp())
        assert cloudpickle.list_registry_pickle_by_value() == {"__mp_main__"}
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def test_all_of_it_together(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        textwrap.dedent(
            """
            import functools, multiprocessing
            from random import random, shuffle
            import numpy as np, umbel
            from numpy.random import randn

            client = umbel.ClientApp()

            @functools.lru_cache
            def table():
                return np.arange(3.0)

            @client.train
            def train(model, ctx):
                shuffle(order := list(range(3)))
                return umbel.Update(model={"w": model["w"] + random() + table()[order] + randn(3)})

            def run(how):
                server = umbel.ServerApp(model={"w": np.zeros(3)}, strategy=umbel.fed_avg(), rounds=2)
                return umbel.run(server, client, on=umbel.Simulation(clients=3, **how), seed=1).model["w"].tolist()

            if __name__ == "__main__":
                hows = [{"engine": "inline"}, {"engine": "processes", "workers": 2}]
                inline, processes = map(run, hows)
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    assert [inline] * 2 == [processes, pool.map(run, hows[1:])[0]]
                print("the same")
            """
        )
    )
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout == "the same\n", done.stderr

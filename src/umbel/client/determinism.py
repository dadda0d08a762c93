"""Same bits: seeds and threads as a function of the task, not of who called us.

Before each handler the global generators that user code may draw from are seeded from the task's own stream, and
one thread computes: PyTorch gives other weights with two threads than with one.
"""

from __future__ import annotations

import os
import pickle
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, final

import numpy as np
from threadpoolctl import threadpool_limits

from umbel.client.labels import leave_unheard, only_heard

_last: list[int | Callable[[], int] | None] = [None]  # the key, for who is seeded late
_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def seed_all(key: int | Callable[[], int]) -> None:
    """Seed ``random``, ``numpy.random`` and, where imported, PyTorch.

    Args:
        key: 128 bits; or what gives them, which is not asked before there is something to seed: PyTorch is seeded when
            a handler imports it, and `random` when it is touched; see `seed_late`.
    """
    _last[0] = key
    if seeds_at_once():
        number = _number(key)
        for seed in _touched:
            seed(number)
        _seed_torch(number)


def prepare(key: int | Callable[[], int], threads: int) -> None:
    """`seed_all` and `set_threads`; next to nothing where both would wait for PyTorch to be imported."""
    if seeds_at_once():
        seed_all(key)
        set_threads(threads)
    else:
        _last[0] = key


def seeds_at_once() -> bool:
    """Is there something to seed, so that `seed_all` needs the key?"""
    return bool(_touched) or "torch" in sys.modules


def states_of_modules() -> tuple[Any, ...]:
    """Equal to those of another look if nobody has drawn from `random` or `numpy.random` in between."""
    return (
        None if type(random) is _Untouched else random.getstate(),
        None if type(np.random) is _Untouched else pickle.dumps(np.random.get_state(legacy=False)),
    )


def _number(key: int | Callable[[], int]) -> int:
    return key if isinstance(key, int) else key()


def _seed_with_last(seed: Callable[[int], None]) -> None:
    """Seed what was touched, or imported, after `seed_all`."""
    if (key := _last[0]) is not None:
        seed(_number(key))


def _seed_random(key: int) -> None:
    random.seed(key)


def _seed_numpy(key: int) -> None:
    np.random.seed(key & 0xFFFFFFFF)  # one word: four take 10 us more


_SEEDED: tuple[tuple[ModuleType, Callable[[int], None]], ...] = ((random, _seed_random), (np.random, _seed_numpy))
_touched = [seed for _, seed in _SEEDED]  # what seeds those that are not late
_PARTS: tuple[tuple[ModuleType, ...], ...] = ((random,), (np.random, np.random.mtrand))
_OWN_STATE = {  # who makes one of these has a generator of its own
    *("Random", "SystemRandom", "RandomState", "Generator", "default_rng", "SeedSequence"),
    *("BitGenerator", "MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"),
}


@final
class _Untouched(ModuleType):
    """`random` or `numpy.random` as long as nobody has used, or taken, any of its functions."""

    def __getattribute__(self, name: str) -> Any:
        if name not in _OWN_STATE and (name == "__dict__" or not name.startswith("__")):
            _touch(self)
        return ModuleType.__getattribute__(self, name)


def _touch(module: ModuleType) -> None:
    """From now on it is a module like others; and seeded as if it had always been."""
    for (whole, seed), parts in zip(_SEEDED, _PARTS, strict=True):
        if module in parts and type(whole) is _Untouched:
            for part in parts:
                part.__class__ = ModuleType
            _touched.append(seed)
            _seed_with_last(seed)


def seed_late() -> None:
    """Do not seed ``random`` and ``numpy.random`` before somebody touches them: the same numbers, for less.

    Between two trainings, whose code leaves nothing in the caches, their seeding takes a tenth of a small task.
    Only for a process in which nobody has taken a function from them yet: ``from random import shuffle`` is not seen
    later on.
    """
    _touched.clear()
    for parts in _PARTS:
        for part in parts:
            part.__class__ = _Untouched


def _seed_torch(key: int) -> None:
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "default_generator"):
        # not torch.manual_seed, which takes 200 us: it visits every kind of device
        torch.default_generator.manual_seed(key & 0x7FFFFFFFFFFFFFFF)
        _seed_gpus(torch, key & 0x7FFFFFFFFFFFFFFF)


def _seed_gpus(torch: Any, key: int) -> None:
    """Seed the generators of GPUs; before their first use for when it comes, perhaps in the handler that follows.

    Then PyTorch keeps the last seed in a queue. What set-up has left there must not count for the first task of a
    process, nor a default: which task is a worker's first one is chance. `torch.cuda.manual_seed_all` would do, but
    each time it takes note of the whole stack.
    """
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(key)
    elif torch.version.cuda is not None or torch.version.hip is not None:
        queue = getattr(torch.cuda, "_lazy_seed_tracker", None)
        if queue is None:
            torch.cuda.manual_seed_all(key)
        else:
            queue.queue_seed_all(lambda: [gpu.manual_seed(key) for gpu in torch.cuda.default_generators], [])


def set_threads(threads: int) -> None:
    """PyTorch's threads, in case user code imported it or changed them.

    Not only where ``get_num_threads`` differs: that asks OpenMP, and MKL inside PyTorch counts for itself.
    """
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(threads)


@contextmanager
def isolated(threads: int) -> Iterator[None]:
    """Limit threads, and give the caller's generators and threads back afterwards."""
    numbers, arrays = random.getstate(), np.random.get_state()
    with (
        _torch_given_back(),
        _torch_seeded_late(threads),
        only_heard(),
        _environment(threads),
        threadpool_limits(limits=threads),
        np.errstate(),  # gives back what handlers make of NumPy's warnings
    ):
        set_threads(threads)
        try:
            yield
        finally:
            random.setstate(numbers)
            np.random.set_state(arrays)


@contextmanager
def _torch_given_back() -> Iterator[None]:
    torch: Any = sys.modules.get("torch")
    before = (torch.get_num_threads(), torch.default_generator.get_state()) if torch is not None else None
    try:
        yield
    finally:
        if before is not None:
            torch.set_num_threads(before[0])
            torch.default_generator.set_state(before[1])
        elif (torch := sys.modules.get("torch")) is not None and hasattr(torch, "set_num_threads"):
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))


@contextmanager
def _torch_seeded_late(threads: int) -> Iterator[None]:
    """Seed and limit PyTorch the moment it is imported, be it inside a handler."""
    if "torch" in sys.modules:
        yield
        return

    def imported() -> None:
        set_threads(threads)
        leave_unheard()
        _seed_with_last(_seed_torch)

    finder = _AfterImport("torch", imported)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@final
class _AfterImport(MetaPathFinder):
    """Calls a function when a module has been imported."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self._name, self._then = name, then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that the other finders give, with our function behind its loader."""
        if fullname != self._name:
            return None
        others = (f.find_spec(fullname, path, target) for f in sys.meta_path if f is not self)
        spec = next((s for s in others if s is not None), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_then(module: ModuleType) -> None:
                load(module)
                self._then()

            spec.loader.exec_module = load_then  # type: ignore[method-assign]  # this import's own loader
        return spec


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Limit the libraries, too, that a handler imports later: they ask the environment when they are loaded."""
    before = {name: os.environ.get(name) for name in _LIMITS}
    os.environ.update(dict.fromkeys(_LIMITS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


__all__ = ["isolated", "prepare", "seed_all", "seed_late", "seeds_at_once", "set_threads", "states_of_modules"]

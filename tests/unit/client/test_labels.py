"""Labels for profilers."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from umbel.client.labels import leave_unheard, only_heard

torch = pytest.importorskip("torch", reason="needs PyTorch")
STEP = "Optimizer.step#SGD.step"


def step() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([p], lr=0.1)
    p.sum().backward()
    optimizer.step()


def heard(what: Any) -> list[str]:
    with torch.autograd.profiler.profile() as profile:
        what()
    return [event.key for event in profile.key_averages()]


@torch.autograd.profiler.record_function("made before")
def before() -> None: ...


def test_a_profiler_hears_what_it_heard_before() -> None:
    assert STEP in heard(step)
    with only_heard():

        @torch.autograd.profiler.record_function("made meanwhile")
        def meanwhile() -> None: ...

        step()
        assert STEP in heard(step)
        for _ in range(2):
            before()
            meanwhile()
            assert "made before" in heard(before)
            assert "made meanwhile" in heard(meanwhile)
    assert STEP in heard(step)
    assert "made meanwhile" in heard(meanwhile)
    meanwhile()


def test_without_a_profiler_no_label_is_made() -> None:
    labels = torch.autograd.profiler.record_function
    with only_heard(), labels("one") as label:
        assert label.record is None
    with labels("two") as label:
        assert label.record is not None


def test_one_in_the_other() -> None:
    labels = torch.autograd.profiler.record_function
    first = labels.__enter__
    with only_heard():
        with only_heard():
            pass
        assert labels.__enter__ is not first
    assert labels.__enter__ is first


def test_pytorch_that_comes_later() -> None:
    program = """
import sys
from umbel.client.determinism import isolated
assert "torch" not in sys.modules
with isolated(1):
    import torch
    with torch.autograd.profiler.record_function("one") as label:
        assert label.record is None
with torch.autograd.profiler.record_function("two") as label:
    assert label.record is not None
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_pytorch_that_is_not_as_we_know_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.autograd.profiler.record_function
    first = labels.__enter__
    monkeypatch.delattr(torch.autograd, "_profiler_enabled")
    with only_heard():
        leave_unheard()
        assert labels.__enter__ is first

from __future__ import annotations

import io
import sys

import numpy as np
import pytest

from umbel.errors import UsageError
from umbel.partition import Partition, dirichlet, iid, natural, plot

patches = pytest.importorskip("matplotlib.patches")
LABELS = np.random.default_rng(0).integers(0, 10, 3000)


def test_it_draws_without_pyplot() -> None:
    loaded = "matplotlib.pyplot" in sys.modules
    plot(dirichlet(LABELS, clients=5, alpha=0.3), LABELS).savefig(io.BytesIO())
    assert ("matplotlib.pyplot" in sys.modules) == loaded


@pytest.mark.parametrize("clients", [1, 5, 60, 61, 200])
def test_the_bars_are_as_high_as_the_clients_are_large(clients: int) -> None:
    parts = dirichlet(LABELS, clients=clients, alpha=0.3, seed=1)
    axes = plot(parts, LABELS, title="skewed").axes[0]
    if clients <= 60:
        tops = [bar.get_y() + bar.get_height() for bar in axes.containers[-1]]
    else:
        steps = axes.patches[-1]
        assert isinstance(steps, patches.StepPatch)
        tops = steps.get_data().values.tolist()
    assert tops == parts.sizes.tolist()
    assert axes.get_ylim()[1] >= max(tops)
    assert axes.get_title() == "skewed"
    assert len(axes.get_xticks()) <= 20


def test_shares_sorted_and_named() -> None:
    ids = np.repeat(["berlin", "paris", "rome"], [2, 5, 3])
    figure = plot(natural(ids), np.arange(10) % 2, classes=["no", "yes"], shares=True, sort=True, size=(5, 3))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["paris", "rome", "berlin"]
    assert all(bar.get_y() + bar.get_height() == pytest.approx(1) for bar in axes.containers[-1])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["yes", "no"]
    assert tuple(figure.get_size_inches()) == (5, 3)


def test_many_classes_get_a_colour_bar() -> None:
    labels = np.arange(300) % 100
    figure = plot(iid(labels, clients=3), labels)
    assert not figure.legends
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["0", "20", "40", "59", "79", "99"]


def test_empty_partitions_and_clients_are_drawn() -> None:
    for parts in (Partition([]), Partition([[], [0]]), Partition([[]])):
        plot(parts, [0, 1], shares=True).savefig(io.BytesIO())


def test_errors() -> None:
    with pytest.raises(UsageError, match="1 class names for 10 classes"):
        plot(iid(LABELS, clients=3), LABELS, classes=["a"])


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"pip install 'umbel\[plot\]'"):
        plot(iid(LABELS, clients=3), LABELS)

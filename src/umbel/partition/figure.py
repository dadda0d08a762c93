"""A picture of a partition: bars of class counts, one per client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from umbel.errors import UsageError
from umbel.partition.allocation import Floats
from umbel.partition.heterogeneity import tally
from umbel.partition.labels import encode
from umbel.partition.partition import Partition

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

_GAPS = 60  # up to so many clients the bars stand apart
_TICKS = 40  # up to so many clients each has its name below its bar; half as many when names are just numbers
_LEGEND = 20  # up to so many classes each has a line in the legend; beyond, a colour bar


def plot(
    parts: Partition,
    labels: ArrayLike,
    *,
    classes: Sequence[str] | None = None,
    shares: bool = False,
    sort: bool = False,
    title: str | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Draw how many samples of each class each client has, as stacked bars.

    The figure belongs to no window and no global state: ``plot(...).savefig("parts.png")``.

    Args:
        parts: the partition.
        labels: the labels of all samples.
        classes: what to call the classes, in their order; their labels by default.
        shares: draw each client's shares instead of its counts.
        sort: draw the largest client first, not in the partition's order.
        title: a line above.
        size: width and height in inches; by default it grows with the number of clients.

    Raises:
        UsageError: matplotlib is not installed, names that do not match the classes, an index beyond the labels.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("plot needs matplotlib.", advice="Install it: pip install 'umbel[plot]'.") from error

    found = encode(labels)
    names = found.classes if classes is None else tuple(map(str, classes))
    if len(names) != len(found.classes):
        raise UsageError(
            f"{len(names)} class names for {len(found.classes)} classes.", advice="Give one name per class."
        )
    order = np.argsort(-parts.sizes, kind="stable") if sort else np.arange(len(parts))
    table = tally(parts, found)[order].astype(np.float64)
    if shares:
        table /= np.maximum(table.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=size or (min(max(6.0, 2.5 + 0.16 * len(parts)), 16.0), 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    colours = _colours(len(names))
    _bars(axes, table, names, colours)
    axes.set(xlabel="client", ylabel="share of samples" if shares else "samples", title=title or "")
    _name(axes, [parts.names[at] for at in order], figure.get_size_inches()[0])
    if len(names) <= _LEGEND:
        _legend(figure, axes)
    else:
        _colour_bar(figure, axes, names, colours)
    return figure


def _colours(classes: int) -> Colormap:
    import matplotlib

    known = matplotlib.colormaps["tab10" if classes <= 10 else "tab20" if classes <= _LEGEND else "turbo"]
    return known if classes <= _LEGEND else known.resampled(classes)


def _bars(axes: Axes, table: Floats, names: Sequence[str], colours: Colormap) -> None:
    """One patch per class: with gaps as bars, without as steps, which draw fast for any number of clients."""
    places = np.arange(len(table))
    base = np.zeros(len(table))
    for at, name in enumerate(names):
        top = base + table[:, at]
        if len(table) <= _GAPS:
            axes.bar(places, table[:, at], 0.8, base, color=colours(at), label=name)
        else:
            edges = np.arange(len(table) + 1) - 0.5
            axes.stairs(top, edges, baseline=base, fill=True, color=colours(at), label=name, linewidth=0)
        base = top
    axes.margins(x=0.01)
    axes.set_ylim(0, base.max(initial=0) * 1.03 or 1)


def _name(axes: Axes, names: Sequence[str], width: float) -> None:
    """Write as many clients' names below the bars as fit."""
    most = _TICKS // 2 if all(map(str.isdecimal, names)) else _TICKS
    step = max(-(-len(names) // most), 1)
    shown = range(0, len(names), step if step < 5 else -(-step // 5) * 5)
    inches = width - 2  # what the legend and the margins leave
    crowded = sum(len(names[at]) + 2 for at in shown) > 12 * inches  # characters per inch at the default size
    axes.set_xticks(list(shown), [names[at] for at in shown], rotation=90 if crowded else 0)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    # Reversed, so that the list runs from top to bottom as the bars do.
    figure.legend(handles[::-1], names[::-1], title="class", loc="outside right upper", frameon=False)


def _colour_bar(figure: Figure, axes: Axes, names: Sequence[str], colours: Colormap) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import NoNorm

    shown = np.unique(np.linspace(0, len(names) - 1, 6).round().astype(int))
    bar = figure.colorbar(ScalarMappable(NoNorm(0, len(names) - 1), colours), ax=axes, label="class", ticks=shown)
    bar.ax.set_yticklabels([names[at] for at in shown])


__all__ = ["plot"]

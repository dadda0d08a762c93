"""What comes back from a client: an `Update` from training or a query, `Metrics` from an evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, final, get_args

import numpy as np

from umbel.arguments import whole
from umbel.arrays import Arrays
from umbel.errors import BadUpdate, EntryError

Kind = Literal["model", "delta", "value"]
_KINDS = frozenset(get_args(Kind))
Metric = Any  # a float, or a small float64 array
_LIGHTEST, _HEAVIEST = 1e-12, 1e12  # one client's weight can neither drown the others nor vanish in float32
_LONGEST_NAME = 64
MAX_METRICS = 100  # what may leave a node as metrics: numbers that say something, not data in disguise


@final
class Update:
    """What a client returns from ``train`` or from a query.

    Args:
        model: the trained model: a mapping of names to arrays, or `Arrays`. The engine subtracts what was sent.
        delta: the change of the model, where the client computes it itself.
        value: anything that is not shaped like the model: counts, trees (bytes), statistics.
            Exactly one of these three is given.
        weight: the update's share in a mean; usually the number of examples. 0, or 1e-12 to 1e12.
        metrics: at most 100 finite numbers by name.
        extra: more named sets of arrays, each folded by its own aggregator.
        steps: how many local optimizer steps made it, where that is known; ``umbel.torch.local`` counts them.

    Raises:
        BadUpdate: the arguments make no update.
    """

    __slots__ = ("arrays", "extra", "kind", "metrics", "steps", "weight")

    arrays: Arrays
    kind: Kind
    weight: float
    metrics: Mapping[str, Metric]
    extra: Mapping[str, Arrays]
    steps: int | None

    def __init__(
        self,
        *,
        model: Arrays | Mapping[str, Any] | None = None,
        delta: Arrays | Mapping[str, Any] | None = None,
        value: Arrays | Mapping[str, Any] | None = None,
        weight: float = 1.0,
        metrics: Mapping[str, Metric] | None = None,
        extra: Mapping[str, Arrays | Mapping[str, Any]] | None = None,
        steps: int | None = None,
    ) -> None:
        if (model is not None) + (delta is not None) + (value is not None) != 1:
            raise BadUpdate("an update has exactly one of model=, delta= and value=")
        given = model if model is not None else delta if delta is not None else value
        self.kind = "model" if model is not None else "delta" if delta is not None else "value"
        self.arrays = _as_arrays(given, self.kind)
        self.weight = check_weight(weight)
        self.metrics = check_metrics(metrics) if metrics else {}
        self.steps = None if steps is None else whole(steps, "steps", least=0)
        self.extra = {} if extra is None else _as_extra(extra)

    @classmethod
    def made(
        cls, kind: Kind, arrays: Arrays, *, weight: float, metrics: Mapping[str, Metric], extra: Mapping[str, Arrays]
    ) -> Update:
        """An update from parts that were checked when it was made elsewhere."""
        update = cls.__new__(cls)
        update.kind, update.arrays, update.weight = kind, arrays, weight
        update.metrics, update.extra, update.steps = metrics, extra, None
        return update

    def replace(
        self,
        arrays: Arrays | None = None,
        *,
        kind: Kind | None = None,
        weight: float | None = None,
        metrics: Mapping[str, Metric] | None = None,
        extra: Mapping[str, Arrays] | None = None,
    ) -> Update:
        """The same update with some of it replaced, as transforms and middleware return it.

        Raises:
            BadUpdate: the weight or a metric makes no sense.
        """
        made = Update.__new__(Update)
        made.kind, made.steps = kind or self.kind, self.steps
        made.extra = self.extra if extra is None else extra
        made.arrays = self.arrays if arrays is None else arrays
        made.weight = self.weight if weight is None else check_weight(weight)
        made.metrics = self.metrics if metrics is None else check_metrics(metrics)
        return made

    def __repr__(self) -> str:
        return f"Update({self.kind}={self.arrays!r}, weight={self.weight}, metrics={dict(self.metrics)})"


@final
class Metrics:
    """What an evaluation returns.

    Args:
        values: at most 100 finite numbers by name; a small array counts by its elements.
        weight: the share of this client in a weighted mean; usually the number of examples.

    Raises:
        BadUpdate: a metric that is not finite, or too many.
    """

    __slots__ = ("values", "weight")

    def __init__(self, values: Mapping[str, Metric], weight: float = 1.0) -> None:
        self.values = check_metrics(values)
        self.weight = check_weight(weight)

    @classmethod
    def made(cls, values: Mapping[str, Metric], *, weight: float) -> Metrics:
        """Metrics from parts that were checked when they were made elsewhere."""
        metrics = cls.__new__(cls)
        metrics.values, metrics.weight = dict(values), weight
        return metrics

    def __getitem__(self, name: str) -> Metric:
        return self.values[name]

    def __repr__(self) -> str:
        return f"Metrics({dict(self.values)}, weight={self.weight})"


def check_update(update: Update) -> Update:
    """The same update, checked once more: a handler, or its middleware, may have changed it since it was made.

    Raises:
        BadUpdate: it is no update any more.
    """
    if update.kind not in _KINDS:
        raise BadUpdate(f"its kind is {update.kind!r}", advice='make a new Update, or set "model", "delta" or "value"')
    update.arrays = _as_arrays(update.arrays, "arrays")
    update.weight = check_weight(update.weight)
    if update.extra != {}:
        update.extra = _as_extra(update.extra)
    if update.metrics != {}:
        update.metrics = check_metrics(update.metrics)
    update.steps = None if update.steps is None else whole(update.steps, "steps", least=0)
    return update


def _as_extra(extra: Any) -> dict[str, Arrays]:
    if isinstance(extra, Arrays) or not isinstance(extra, Mapping):
        advice = 'name each set of arrays: extra={"control": {"w": ...}}'
        raise BadUpdate(f"extra= is a {type(extra).__name__}", advice=advice)
    return {str(k): _as_arrays(v, f"extra[{k!r}]") for k, v in extra.items()}


def _as_arrays(given: Any, where: str) -> Arrays:
    if isinstance(given, Arrays):
        return given
    if type(given) is not dict and not isinstance(given, Mapping):  # the second is slow
        raise BadUpdate(
            f"{_argument(where)} is a {type(given).__name__}",
            advice="return a mapping of names to arrays, or what umbel.torch.arrays(net) gives",
        )
    try:
        return Arrays(given)
    except EntryError as error:
        raise BadUpdate(f"{_argument(where)}: {error.what}", entry=error.entry, advice=error.advice) from error


def _argument(where: str) -> str:
    return f"{where}=" if where in _KINDS else where


def check_weight(weight: Any) -> float:
    """The weight as a float.

    Raises:
        BadUpdate: it is negative, not finite, no number, or out of any proportion.
    """
    if type(weight) in (int, float) and _LIGHTEST <= weight <= _HEAVIEST:  # quick, as nearly all are
        return float(weight)
    try:
        number = math.nan if isinstance(weight, str | bytes | bytearray) else float(weight)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if number != 0 and not _LIGHTEST <= number <= _HEAVIEST:
        raise BadUpdate(
            f"weight is {weight!r}",
            advice=f"return 0, or a number between {_LIGHTEST:g} and {_HEAVIEST:g} such as the number of examples",
        )
    return number


def check_metrics(metrics: Any) -> dict[str, Metric]:
    """Metrics as floats and small float64 arrays.

    Raises:
        BadUpdate: one is not finite or no number, its name cannot be printed, or there are more than 100.
    """
    if not isinstance(metrics, Mapping):
        raise BadUpdate(f"metrics are a {type(metrics).__name__}", advice='return a mapping such as {"loss": 0.3}')
    checked: dict[str, Metric] = {}
    count = 0
    for name, value in metrics.items():
        if not isinstance(name, str):
            raise BadUpdate(f"a metric is called {name!r}", advice='names are text: write it in quotes, {"loss": 0.3}')
        if type(value) is float and math.isfinite(value):
            checked[name] = value
            count += 1
            continue
        array = _metric_array(name, value)
        count += array.size
        checked[name] = float(array) if array.ndim == 0 else array.copy()  # a handler may use its own again
    long = next((name for name in checked if len(name) > _LONGEST_NAME), None)
    if long is not None:
        raise BadUpdate(f"a metric's name has {len(long)} characters, {_LONGEST_NAME} may leave a client")
    strange = next((name for name in checked if not name.isprintable()), None)
    if strange is not None:  # they become columns of the history, which people read on terminals
        raise BadUpdate(f"a metric is called {strange!r}", advice="leave out what cannot be printed")
    if count > MAX_METRICS:
        raise BadUpdate(
            f"there are {count} numbers in metrics, {MAX_METRICS} may leave a client",
            advice="return them as a value of a query instead",
        )
    return checked


def _is_numeric(given: Any) -> bool:
    # objects may be numbers of other kinds, such as Decimal; NumPy would make numbers of text, dates and what is masked
    numeric = given.dtype.kind in "biufO" or given.dtype.name == "bfloat16"
    return numeric and not isinstance(given, np.ma.MaskedArray)


def _metric_array(name: Any, value: Any) -> Any:
    for method in ("detach", "cpu", "double"):  # a tensor that has its graph, lies on a GPU, or is bfloat16
        value = getattr(value, method, lambda it=value: it)()
    try:
        given = np.asanyarray(value)
        array = np.asarray(given, dtype=np.float64) if _is_numeric(given) else None
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise BadUpdate(f"metric {name!r} is no number: {error}") from error
    if array is None:
        what = "masked" if isinstance(given, np.ma.MaskedArray) else f"of dtype {given.dtype}"
        raise BadUpdate(f"metric {name!r} is no number: it is {what}", advice="return a float, or an array of them")
    if not array.size:
        raise BadUpdate(f"metric {name!r} has no elements", advice="leave it out where it is not defined")
    if not np.isfinite(array).all():
        raise BadUpdate(
            f"metric {name!r} is {value!r}",
            advice="look for a too high learning rate, or NaN in the data; or leave it out where it is not defined, "
            "e.g. on an empty test set",
        )
    return array


__all__ = ["Metrics", "Update"]

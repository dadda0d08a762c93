"""What an estimator learned, as arrays and back; our code copies each array once in each direction."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from umbel.arrays import Array, Arrays
from umbel.errors import EntryError, UsageError
from umbel.sklearn.family import CLASSES, Family, family_of, misfit, outputs_of
from umbel.spec import Role

Estimator = TypeVar("Estimator")
_FEATURES = "feature_names_in_"
_PRECISIONS = ("F64", "F32")  # what scikit-learn computes in

_sent: WeakKeyDictionary[Any, Arrays] = WeakKeyDictionary()  # what `into` wrote last


def arrays(estimator: Any) -> Arrays:
    """What a fitted or prepared estimator learned.

    ``coef_`` and ``intercept_``, or of a network ``coefs_.0``, ``intercepts_.0``, ..., with the role "trained"; and the
    labels ``classes_`` and, if it has them, ``feature_names_in_``, of which the server's values stay (text travels as
    code points). After `into` these are exactly the entries of that model, in its precision.

    Args:
        estimator: one that ``umbel.sklearn`` lists, or of a subclass.

    Raises:
        UsageError: it is not fitted, or of another kind.
        EntryError: after `into`, it was fitted to other labels, features or shapes than the model's.
    """
    values = family_of(estimator).learned(estimator)
    if not values:
        raise UsageError(
            f"this {type(estimator).__name__} has learned nothing yet",
            advice="fit it; or for a model without data, umbel.sklearn.prepare(estimator, features=..., classes=...)",
        )
    for name, value in values.items():
        if hasattr(value, "toarray"):
            raise EntryError(f"entry {name!r} is sparse", entry=name, advice="call estimator.densify() first")
    for name in (CLASSES, _FEATURES):
        if getattr(estimator, name, None) is not None:
            values[name] = getattr(estimator, name)
    sent = _sent.get(estimator)
    return _as_arrays(values) if sent is None else _as_sent(estimator, values, sent)


def into(estimator: Estimator, model: Arrays) -> Estimator:
    """Write a model's values into an estimator; whatever it had learned or counted before is dropped.

    Afterwards ``predict``, ``partial_fit``, and ``fit`` with ``warm_start=True`` work as if the estimator had been
    fitted to this model. It shares no memory with the model. Entries of the estimator that the model does not have
    keep their values.

    Args:
        estimator: fitted or not; its settings stay.
        model: what `arrays` gave for such an estimator, or the mean of several.

    Returns:
        ``estimator``.

    Raises:
        EntryError: an entry that does not fit the estimator's settings, or one is missing.
        UsageError: it is of another kind, or its labels are not known.

    Warns:
        UserWarning: the next ``fit`` will forget the model, because ``warm_start`` is off.
    """
    _write(estimator, model)
    if not getattr(estimator, "warm_start", True) and not hasattr(estimator, "partial_fit"):
        kind = type(estimator).__name__
        warnings.warn(f"fit would forget the model: make it {kind}(warm_start=True, ...)", UserWarning, stacklevel=2)
    return estimator


def prepare(
    estimator: Estimator,
    *,
    features: int | Sequence[str],
    classes: Sequence[Any] | None = None,
    outputs: int | None = None,
) -> Estimator:
    """Give an estimator parameters without data: zeros, or for a network what its ``fit`` would begin with.

    Args:
        estimator: not yet fitted; a network needs a ``random_state`` to begin the same each time.
        features: how many there are; or their names, if the data are data frames.
        classes: all labels of all clients; for a classifier.
        outputs: how many targets a regressor has, if its targets are two-dimensional.

    Returns:
        ``estimator``, ready for `arrays`, ``predict`` and ``partial_fit``.

    Raises:
        UsageError: an argument is missing or makes no sense for this estimator.
    """
    family = family_of(estimator)
    kind = type(estimator).__name__
    if family.classifier != (classes is not None) or (outputs is not None and not family.outputs):
        needs = "classes=, all labels of all clients" if family.classifier else "no classes="
        several = ", and outputs= where there are several targets" if family.outputs else ", and no outputs="
        raise UsageError(f"for a {kind}, prepare takes features= and {needs}{several}")
    described: dict[str, Any] = {} if isinstance(features, int) else {_FEATURES: np.asarray(features, dtype=str)}
    if classes is not None:
        described[CLASSES] = np.unique(np.asarray(classes))
        outputs = outputs_of(described[CLASSES])
        if len(described[CLASSES]) < 2:
            raise UsageError(f"a {kind} of {len(described[CLASSES])} label", advice="give all labels in classes=")
    count = features if isinstance(features, int) else len(features)
    _write(estimator, _as_arrays(family.start(estimator, count, outputs) | described))
    return estimator


def cover(estimator: Any, x: Any, y: Any, sample_weight: Any = None) -> tuple[Any, Array, Array]:
    """Data in which every label of the model occurs, for a ``fit`` that knows only the labels it sees.

    For each label that ``y`` lacks a row of weight 0 is added: it adds to what the estimator knows, and nothing to what
    it learns.

        x, y, weight = umbel.sklearn.cover(estimator, x, y)
        estimator.fit(x, y, sample_weight=weight)

    Args:
        estimator: a classifier that `into` or `prepare` filled.
        x: array, sparse matrix or data frame of shape (n, features), n >= 1.
        y: n labels.
        sample_weight: n weights; 1 by default.

    Returns:
        x, y and weights, longer by the number of missing labels.

    Raises:
        UsageError: the estimator knows no labels yet, or there are no data.
    """
    y = np.asarray(y)
    known = getattr(estimator, CLASSES, None)
    if known is None or len(y) == 0:
        what = "it knows no labels yet" if known is None else "there are no data"
        raise UsageError(
            f"cover({type(estimator).__name__}): {what}", advice="call umbel.sklearn.into(estimator, model) first"
        )
    missing = known[~np.isin(known, y)]
    weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    rows = np.concatenate([np.arange(len(y)), np.zeros(len(missing), dtype=np.intp)])
    x = x.iloc[rows] if hasattr(x, "iloc") else x.tocsr()[rows] if hasattr(x, "tocsr") else np.asarray(x)[rows]
    return x, np.concatenate([y, missing]), np.concatenate([weight, np.zeros(len(missing))])


def _write(estimator: Any, model: Arrays) -> None:
    family = family_of(estimator)
    if not isinstance(model, Arrays):
        raise UsageError(
            f"a model is umbel.Arrays, not {type(model).__name__}", advice="wrap a dict of arrays: umbel.Arrays(values)"
        )
    names = _decoded(model[_FEATURES]) if _FEATURES in model else None
    classes = _labels(estimator, model) if family.classifier else None
    values = _values(estimator, family, model)
    family.check(estimator, values, None if classes is None else outputs_of(classes))
    family.write(estimator, values, classes)
    if names is not None:
        estimator.feature_names_in_ = names.astype(object)
    _sent[estimator] = model


def _labels(estimator: Any, model: Arrays) -> Array:
    if CLASSES in model:
        return _decoded(model[CLASSES])
    known: Array | None = getattr(estimator, CLASSES, None)
    if known is None:
        raise UsageError(
            f"the model does not say which labels this {type(estimator).__name__} tells apart",
            advice="make the model with umbel.sklearn.prepare(estimator, features=..., classes=...)",
        )
    return known


def _values(estimator: Any, family: Family, model: Arrays) -> dict[str, Array]:
    """The model's values by entry, in memory of the estimator's own."""
    names = family.names(estimator)
    kind = type(estimator).__name__
    for name in model:
        if name not in names and name != _FEATURES and not (name == CLASSES and family.classifier):
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
            raise EntryError(
                f"{kind} has no entry {name!r}{f'; the closest is {close[0]!r}' if close else ''}",
                entry=name,
                advice="use the settings that the model was prepared with (fit_intercept, hidden_layer_sizes)",
            )
    before = family.learned(estimator)
    values = {}
    for name in names:
        if name not in model and name not in before:
            raise EntryError(
                f"the model has no entry {name!r}, and this {kind} has none yet",
                entry=name,
                advice="make the model with umbel.sklearn.prepare and umbel.sklearn.arrays",
            )
        if name in model and model.spec.by_name[name].dtype not in _PRECISIONS:
            raise EntryError(
                f"entry {name!r} is {model.spec.by_name[name].dtype}; scikit-learn computes in 32 and 64 bits",
                entry=name,
                advice='convert the model: model.astype("F32")',
            )
        values[name] = np.array(model[name] if name in model else before[name], order="C")
    return values


def _as_arrays(values: dict[str, Any]) -> Arrays:
    encoded = {n: _encoded(n, v) if n in (CLASSES, _FEATURES) else v for n, v in values.items()}
    roles: dict[str, Role] = {
        n: "frozen" if encoded[n].dtype.kind == "f" else "counter" for n in (CLASSES, _FEATURES) if n in encoded
    }
    return Arrays(encoded, roles=roles)


def _as_sent(estimator: Any, values: dict[str, Any], sent: Arrays) -> Arrays:
    """The values as the entries of the model that was written into the estimator."""
    kind = type(estimator).__name__
    for name, what in ((CLASSES, "labels"), (_FEATURES, "features")):
        if name in sent and name in values and not np.array_equal(values[name], _decoded(sent[name])):
            raise EntryError(
                f"{kind} was fitted to the {what} {list(values[name])}, the model has {list(_decoded(sent[name]))}",
                entry=name,
                advice="fit knows only the labels it sees: train with partial_fit, or let each label occur with "
                "x, y, weight = umbel.sklearn.cover(estimator, x, y); estimator.fit(x, y, sample_weight=weight)"
                if name == CLASSES
                else "give all clients the same columns in the same order",
            )
    spec = sent.canonical().spec

    def write(name: str, out: Array) -> None:
        value = np.asarray(sent.raw(name) if name in (CLASSES, _FEATURES) else values.get(name, ()))
        if value.size != out.size or [n for n in value.shape if n != 1] != [n for n in out.shape if n != 1]:
            raise misfit(estimator, name, value, f"{out.shape}, as in the model that was sent")
        np.copyto(out, value.reshape(out.shape), casting="same_kind")

    return Arrays.build(spec, write)


def _encoded(name: str, values: Any) -> Array:
    """Labels or names as numbers: text as rows of code points."""
    a = np.asarray(values)
    if a.dtype.kind == "O" and all(isinstance(v, str) for v in a.flat):
        a = a.astype(str)
    if a.dtype.kind == "U":
        return np.ascontiguousarray(a).view(np.uint32).reshape(len(a), -1)
    if a.ndim != 1 or a.dtype.kind not in "biuf":
        raise EntryError(
            f"{name!r} holds {a.dtype} of shape {a.shape}", entry=name, advice="use numbers or strings as labels"
        )
    return a


def _decoded(stored: Array) -> Array:
    """The inverse of `_encoded`; never the memory of the model."""
    if stored.ndim == 2:
        return np.array(stored, np.uint32, order="C").view(f"<U{stored.shape[1]}").reshape(-1)
    return np.array(stored)


__all__ = ["arrays", "cover", "into", "prepare"]

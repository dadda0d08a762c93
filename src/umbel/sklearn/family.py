"""How each supported estimator keeps what it learned, and how to put that into one.

The attributes are scikit-learn's documented ones, and of its private ones those that ``partial_fit`` and
``predict`` look for in an estimator that ``fit`` would have left (scikit-learn 1.4 to 1.9).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import numpy as np

from umbel.arrays import Array
from umbel.errors import EntryError, UsageError

CLASSES = "classes_"

# What fit leaves in an estimator besides attributes that end in "_".
_LEFT_BEHIND = frozenset(
    {
        "_average_coef",
        "_average_intercept",
        "_best_coefs",
        "_best_intercepts",
        "_coef_indptr",
        "_expanded_class_weight",
        "_intercept_indptr",
        "_label_binarizer",
        "_no_improvement_count",
        "_optimizer",
        "_random_state",
        "_standard_coef",
        "_standard_intercept",
    }
)


def outputs_of(classes: Array) -> int:
    """How many functions tell these labels apart: one is enough for two."""
    return 1 if len(classes) == 2 else len(classes)


class Family(ABC):
    """Estimators that keep what they learned in the same way.

    Attributes:
        classifier: do they predict labels?
        outputs: may they have several targets?
        binarizer: settings of the LabelBinarizer that they predict with; None for none.
    """

    classifier: bool
    outputs: bool
    binarizer: Mapping[str, int] | None

    @abstractmethod
    def names(self, estimator: Any) -> tuple[str, ...]:
        """The entries that an estimator of these settings has."""

    @abstractmethod
    def learned(self, estimator: Any) -> dict[str, Any]:
        """The values of a fitted estimator, by entry; empty when it is not fitted."""

    @abstractmethod
    def start(self, estimator: Any, features: int, outputs: int | None) -> dict[str, Array]:
        """What ``fit`` begins with."""

    @abstractmethod
    def check(self, estimator: Any, values: Mapping[str, Array], outputs: int | None) -> None:
        """Refuse values whose shapes do not fit the settings.

        Args:
            estimator: whose settings.
            values: by entry.
            outputs: how many there must be; None where the values say it.

        Raises:
            EntryError: names the entry.
        """

    @abstractmethod
    def install(self, estimator: Any, values: Mapping[str, Array], classes: Array | None) -> None:
        """Make the estimator one that has learned these values and nothing else."""

    def write(self, estimator: Any, values: Mapping[str, Array], classes: Array | None) -> None:
        """Forget what was learned before, and install these values."""
        for attribute in tuple(vars(estimator)):
            if attribute in _LEFT_BEHIND or (attribute.endswith("_") and not attribute.startswith("__")):
                delattr(estimator, attribute)
        self.install(estimator, values, classes)
        if classes is not None:
            if not isinstance(getattr(type(estimator), CLASSES, None), property):
                estimator.classes_ = classes
            if self.binarizer is not None:
                from sklearn.preprocessing import LabelBinarizer

                estimator._label_binarizer = LabelBinarizer(**self.binarizer).fit(classes)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Linear(Family):
    """``coef_`` and, unless ``fit_intercept`` is off, ``intercept_``.

    Attributes:
        classifier: do they predict labels?
        outputs: may they have several targets?
        binarizer: settings of the LabelBinarizer that they predict with.
        scalar: is the intercept for one target a number, and not an array of one?
    """

    classifier: bool = False
    outputs: bool = False
    binarizer: Mapping[str, int] | None = None
    scalar: bool = False

    def names(self, estimator: Any) -> tuple[str, ...]:
        """``coef_`` and perhaps ``intercept_``."""
        return ("coef_", "intercept_") if estimator.fit_intercept else ("coef_",)

    def learned(self, estimator: Any) -> dict[str, Any]:
        """The attributes of these names."""
        if getattr(estimator, "coef_", None) is None:
            return {}
        return {name: getattr(estimator, name) for name in self.names(estimator)}

    def start(self, estimator: Any, features: int, outputs: int | None) -> dict[str, Array]:
        """Zeros."""
        coef = np.zeros(features if outputs is None else (outputs, features))
        return {name: coef if name == "coef_" else self._no_intercept(coef) for name in self.names(estimator)}

    def check(self, estimator: Any, values: Mapping[str, Array], outputs: int | None) -> None:
        """One row of ``coef_`` and one intercept for each output."""
        coef = values["coef_"]
        rows = coef.shape[0] if coef.ndim == 2 else 1
        wanted = outputs or (rows if self.outputs else 1)
        if coef.ndim not in (1, 2) or rows != wanted:
            raise misfit(estimator, "coef_", coef, f"({outputs}, features)" if outputs else "(features,)")
        if "intercept_" in values and values["intercept_"].size != rows:
            raise misfit(estimator, "intercept_", values["intercept_"], f"({rows},)")

    def install(self, estimator: Any, values: Mapping[str, Array], classes: Array | None) -> None:  # noqa: ARG002
        """The attributes, and what SGD keeps beside them for a running average."""
        coef = values["coef_"]
        intercept = values.get("intercept_", self._no_intercept(coef))
        estimator.coef_ = coef
        estimator.intercept_ = intercept if intercept.ndim else intercept[()]
        estimator.n_features_in_ = coef.shape[-1]
        if getattr(estimator, "average", False):
            estimator._standard_coef, estimator._average_coef = coef.copy(), np.zeros_like(coef)
            estimator._standard_intercept, estimator._average_intercept = intercept.copy(), np.zeros_like(intercept)

    def _no_intercept(self, coef: Array) -> Array:
        rows = coef.shape[:1] if coef.ndim == 2 else () if self.scalar else (1,)
        return np.zeros(rows, dtype=coef.dtype)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Layers(Family):
    """A network: ``coefs_.0``, ``intercepts_.0``, ``coefs_.1``, ...

    Attributes:
        classifier: does it predict labels?
        outputs: may it have several targets?
        binarizer: settings of the LabelBinarizer that it predicts with.
    """

    classifier: bool = False
    outputs: bool = False
    binarizer: Mapping[str, int] | None = None

    def names(self, estimator: Any) -> tuple[str, ...]:
        """Two for each layer."""
        layers = range(len(_hidden(estimator)) + 1)
        return tuple(f"{kind}.{i}" for i in layers for kind in ("coefs_", "intercepts_"))

    def learned(self, estimator: Any) -> dict[str, Any]:
        """The layers' arrays."""
        if not hasattr(estimator, "coefs_"):
            return {}
        layers = enumerate(zip(estimator.coefs_, estimator.intercepts_, strict=True))
        return {f"{kind}.{i}": a for i, pair in layers for kind, a in zip(("coefs_", "intercepts_"), pair, strict=True)}

    def start(self, estimator: Any, features: int, outputs: int | None) -> dict[str, Array]:
        """What ``fit`` draws with the same ``random_state``.

        Source: Glorot and Bengio, AISTATS 2010, equation 16; https://proceedings.mlr.press/v9/glorot10a.html
        Differs: as scikit-learn, which draws the intercepts too, and for "logistic" takes 2 for 6.
        """
        from sklearn.utils import check_random_state

        random = check_random_state(estimator.random_state)
        factor = 2.0 if estimator.activation == "logistic" else 6.0
        sizes = [features, *_hidden(estimator), outputs or 1]
        values: dict[str, Array] = {}
        for i, (rows, columns) in enumerate(pairwise(sizes)):
            bound = np.sqrt(factor / (rows + columns))
            values[f"coefs_.{i}"] = random.uniform(-bound, bound, (rows, columns))
            values[f"intercepts_.{i}"] = random.uniform(-bound, bound, columns)
        return values

    def check(self, estimator: Any, values: Mapping[str, Array], outputs: int | None) -> None:
        """Each layer begins where the one before it ends."""
        last = values[f"coefs_.{len(_hidden(estimator))}"]
        ends = [*_hidden(estimator), outputs or (last.shape[-1] if last.ndim else 1)]
        begin = values["coefs_.0"].shape[0] if values["coefs_.0"].ndim else 1
        for i, end in enumerate(ends):
            for name, shape in ((f"coefs_.{i}", (begin, end)), (f"intercepts_.{i}", (end,))):
                if values[name].shape != shape:
                    raise misfit(estimator, name, values[name], str(shape))
            begin = end

    def install(self, estimator: Any, values: Mapping[str, Array], classes: Array | None) -> None:
        """The layers, and the counters of a network that has not begun to train."""
        layers = range(len(values) // 2)
        estimator.coefs_ = [values[f"coefs_.{i}"] for i in layers]
        estimator.intercepts_ = [values[f"intercepts_.{i}"] for i in layers]
        estimator.n_features_in_ = estimator.coefs_[0].shape[0]
        estimator.n_outputs_ = estimator.coefs_[-1].shape[1]
        estimator.n_layers_ = len(layers) + 1
        estimator.n_iter_ = estimator.t_ = 0
        if classes is not None:
            estimator.out_activation_ = "softmax" if len(classes) > 2 else "logistic"
        else:
            estimator.out_activation_ = "exp" if getattr(estimator, "loss", "") == "poisson" else "identity"
        estimator._best_coefs = [c.copy() for c in estimator.coefs_]
        estimator._best_intercepts = [c.copy() for c in estimator.intercepts_]
        if estimator.solver != "lbfgs":
            early = estimator.early_stopping
            estimator.loss_curve_ = []
            estimator._no_improvement_count = 0
            estimator.best_loss_ = None if early else np.inf
            estimator.validation_scores_ = [] if early else None
            estimator.best_validation_score_ = -np.inf if early else None


def _hidden(estimator: Any) -> list[int]:
    sizes = estimator.hidden_layer_sizes
    return [int(n) for n in np.atleast_1d(sizes)]


def misfit(estimator: Any, name: str, value: Array, needed: str) -> EntryError:
    """The error for an entry of another shape than the estimator's settings ask for."""
    return EntryError(
        f"entry {name!r} has shape {value.shape}, this {type(estimator).__name__} needs {needed}",
        entry=name,
        advice="use the settings and the labels that the model was prepared with",
    )


_LINEAR_CLASSIFIER = Linear(classifier=True)
_REGRESSOR = Linear(outputs=True, scalar=True)
FAMILIES: dict[str, Family] = {
    "ElasticNet": _REGRESSOR,
    "Lasso": _REGRESSOR,
    "LinearRegression": _REGRESSOR,
    "LinearSVC": _LINEAR_CLASSIFIER,
    "LinearSVR": Linear(),
    "LogisticRegression": _LINEAR_CLASSIFIER,
    "MLPClassifier": Layers(classifier=True, binarizer={}),
    "MLPRegressor": Layers(outputs=True),
    "PassiveAggressiveClassifier": _LINEAR_CLASSIFIER,
    "PassiveAggressiveRegressor": Linear(),
    "Perceptron": _LINEAR_CLASSIFIER,
    "Ridge": _REGRESSOR,
    "RidgeClassifier": Linear(classifier=True, binarizer={"pos_label": 1, "neg_label": -1}),
    "SGDClassifier": _LINEAR_CLASSIFIER,
    "SGDRegressor": Linear(),
}


def family_of(estimator: Any) -> Family:
    """The family of an estimator of scikit-learn, or of a subclass of one.

    Raises:
        UsageError: it is none that Umbel knows.
    """
    bases = (c.__name__ for c in type(estimator).__mro__ if c.__module__.partition(".")[0] == "sklearn")
    family = FAMILIES.get(next(bases, ""))
    if family is None:
        raise UsageError(
            f"umbel.sklearn does not know {type(estimator).__name__}",
            advice=f"it knows {', '.join(FAMILIES)}; of a Pipeline give the last step, pipeline[-1]; for anything else "
            'plain NumPy will do: return umbel.Update(model={"coef": ...}) with a dict of arrays',
        )
    return family


__all__ = ["CLASSES", "FAMILIES", "Family", "family_of", "misfit", "outputs_of"]

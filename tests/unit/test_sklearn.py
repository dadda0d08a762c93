"""Estimators as arrays: before any data, with labels that differ between clients, and training on from a model."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    PassiveAggressiveClassifier,
    PassiveAggressiveRegressor,
    Perceptron,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC, LinearSVR

import umbel.sklearn
from umbel.arrays import Array, Arrays
from umbel.errors import EntryError, UsageError
from umbel.sklearn.family import FAMILIES

# ConvergenceWarning and the deprecation of PassiveAggressive* are scikit-learn's and the user's.
pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore:.*deprecated:FutureWarning"
)

RNG = np.random.default_rng(7)
X = RNG.normal(size=(80, 4))
BINARY = (X[:, 0] + 0.3 * RNG.normal(size=80) > 0).astype(int)
THREE = np.digitize(X[:, 1] + 0.3 * RNG.normal(size=80), [-0.5, 0.5])
TARGET = X @ [1.0, -2.0, 0.5, 0.0] + 3.0
TARGETS = np.column_stack([TARGET, -TARGET + 1])

CLASSIFIERS: dict[str, Callable[..., Any]] = {
    "LogisticRegression": lambda **o: LogisticRegression(**{"warm_start": True} | o),
    "SGDClassifier": lambda **o: SGDClassifier(random_state=0, **o),
    "SGDClassifier, average": lambda **o: SGDClassifier(random_state=0, average=True, **o),
    "Perceptron": lambda **o: Perceptron(random_state=0, **o),
    "PassiveAggressiveClassifier": lambda **o: PassiveAggressiveClassifier(random_state=0, **o),
    "RidgeClassifier": RidgeClassifier,
    "LinearSVC": lambda **o: LinearSVC(dual="auto", random_state=0, **o),
    "MLPClassifier": lambda **o: MLPClassifier((5, 3), random_state=0, max_iter=20, **o),
    "MLPClassifier, lbfgs": lambda **o: MLPClassifier(
        5, solver="lbfgs", random_state=0, max_iter=20, **{"warm_start": True} | o
    ),
}
REGRESSORS: dict[str, Callable[..., Any]] = {
    "LinearRegression": LinearRegression,
    "Ridge": Ridge,
    "Lasso": lambda **o: Lasso(0.01, **{"warm_start": True} | o),
    "ElasticNet": lambda **o: ElasticNet(0.01, **{"warm_start": True} | o),
    "SGDRegressor": lambda **o: SGDRegressor(random_state=0, **o),
    "SGDRegressor, average": lambda **o: SGDRegressor(random_state=0, average=5, **o),
    "PassiveAggressiveRegressor": lambda **o: PassiveAggressiveRegressor(random_state=0, **o),
    "LinearSVR": lambda **o: LinearSVR(dual="auto", random_state=0, **o),
    "MLPRegressor": lambda **o: MLPRegressor(hidden_layer_sizes=(5,), random_state=0, max_iter=20, **o),
    "MLPRegressor, early stopping": lambda **o: MLPRegressor(
        hidden_layer_sizes=(5,), random_state=0, max_iter=20, early_stopping=True, **o
    ),
}
SEVERAL_TARGETS = ("LinearRegression", "Ridge", "Lasso", "ElasticNet", "MLPRegressor")


def cases() -> list[Any]:
    found = [(make, y, name) for name, make in CLASSIFIERS.items() for y in (BINARY, THREE)]
    found += [(make, TARGET, name) for name, make in REGRESSORS.items()]
    found += [(REGRESSORS[name], TARGETS, name) for name in SEVERAL_TARGETS]
    kinds = {id(BINARY): "two labels", id(THREE): "three labels", id(TARGET): "one target", id(TARGETS): "two targets"}
    return [pytest.param(make, y, id=f"{name}, {kinds[id(y)]}") for make, y, name in found]


def prepared(make: Callable[..., Any], y: Array, **options: Any) -> Any:
    estimator = make(**options)
    if FAMILIES[type(estimator).__name__].classifier:
        return umbel.sklearn.prepare(estimator, features=4, classes=list(np.unique(y)))
    return umbel.sklearn.prepare(estimator, features=4, outputs=y.shape[1] if y.ndim == 2 else None)


def predictions(estimator: Any) -> list[Array]:
    ask = ("predict", "decision_function", "predict_proba")
    return [getattr(estimator, a)(X) for a in ask if hasattr(estimator, a)]


def test_every_estimator_of_the_table_is_tested() -> None:
    assert {name.partition(",")[0] for name in CLASSIFIERS | REGRESSORS} == set(FAMILIES)


# --- the same for all estimators ------------------------------------------------------------------


@pytest.mark.parametrize(("make", "y"), cases())
def test_a_model_without_data_has_the_shapes_that_fit_gives(make: Callable[..., Any], y: Array) -> None:
    before = umbel.sklearn.arrays(prepared(make, y))
    after = umbel.sklearn.arrays(make().fit(X, y))
    assert list(before) == list(after)
    for name in before:
        assert before[name].size == after[name].size
        assert before[name].dtype == after[name].dtype
        assert before.spec.by_name[name].role == after.spec.by_name[name].role
    assert all(before.spec.by_name[n].dtype == "F64" for n in before if n != "classes_")


@pytest.mark.parametrize(("make", "y"), cases())
def test_a_new_estimator_predicts_as_the_fitted_one(make: Callable[..., Any], y: Array) -> None:
    fitted = make().fit(X, y)
    model = umbel.sklearn.arrays(fitted)
    fresh = umbel.sklearn.into(make(), model)
    for mine, its in zip(predictions(fresh), predictions(fitted), strict=True):
        assert np.array_equal(mine, its)
    assert umbel.sklearn.arrays(fresh) == model
    assert fresh.score(X, y) == fitted.score(X, y)
    assert np.array_equal(pickle.loads(pickle.dumps(fresh)).predict(X), fitted.predict(X))  # noqa: S301
    assert not hasattr(clone(fresh), "n_features_in_")


@pytest.mark.parametrize(("make", "y"), cases())
def test_a_prepared_estimator_predicts_and_trains(make: Callable[..., Any], y: Array) -> None:
    estimator = prepared(make, y)
    start = umbel.sklearn.arrays(estimator)
    assert estimator.predict(X).shape == y.shape
    estimator.fit(X, y)
    assert umbel.sklearn.arrays(estimator) != start
    if hasattr(estimator, "partial_fit") and not getattr(estimator, "early_stopping", False):
        umbel.sklearn.into(estimator, start)
        estimator.partial_fit(X, y)
        assert umbel.sklearn.arrays(estimator) != start
    assert umbel.sklearn.arrays(estimator).spec == start.spec


@pytest.mark.parametrize(("make", "y"), cases())
def test_training_depends_on_the_model_and_the_data_alone(make: Callable[..., Any], y: Array) -> None:
    """A worker uses one estimator for many clients: nothing of the one before may be left."""
    model = umbel.sklearn.arrays(make().fit(X[:40], y[:40]))

    def train(estimator: Any) -> Arrays:
        umbel.sklearn.into(estimator, model)
        if hasattr(estimator, "partial_fit") and not getattr(estimator, "early_stopping", False):
            estimator.partial_fit(X[40:], y[40:])
        else:
            estimator.fit(X[40:], y[40:])
        return umbel.sklearn.arrays(estimator)

    used = make().fit(X, y)
    first = train(make())
    assert train(used) == first
    assert train(used) == first


@pytest.mark.parametrize(("make", "y"), cases())
def test_no_memory_is_shared(make: Callable[..., Any], y: Array) -> None:
    model = umbel.sklearn.arrays(make().fit(X, y))
    before = bytes(model.to_bytes())
    estimator = umbel.sklearn.into(make(), model)
    read = umbel.sklearn.arrays(estimator)
    for value in vars(estimator).values():
        for a in value if isinstance(value, list) else [value]:
            if isinstance(a, np.ndarray) and a.dtype.kind == "f":
                np.add(a, 1.0, out=a)
    assert bytes(model.to_bytes()) == before == bytes(read.to_bytes())


@pytest.mark.parametrize(("make", "y"), cases())
def test_without_an_intercept(make: Callable[..., Any], y: Array) -> None:
    if "fit_intercept" not in make().get_params():
        return
    estimator = prepared(make, y, fit_intercept=False)
    model = umbel.sklearn.arrays(estimator)
    assert "intercept_" not in model
    assert estimator.predict(X).shape == y.shape
    fitted = make(fit_intercept=False).fit(X, y)
    fresh = umbel.sklearn.into(make(fit_intercept=False), umbel.sklearn.arrays(fitted))
    assert np.array_equal(fresh.predict(X), fitted.predict(X))
    with pytest.raises(EntryError, match="'intercept_'"):
        umbel.sklearn.into(make(fit_intercept=False), umbel.sklearn.arrays(make().fit(X, y)))


@pytest.mark.parametrize("name", ["LogisticRegression", "SGDClassifier", "MLPClassifier", "Ridge", "SGDRegressor"])
def test_single_precision_stays(name: str) -> None:
    make = (CLASSIFIERS | REGRESSORS)[name]
    y = BINARY if name in CLASSIFIERS else TARGET
    model = umbel.sklearn.arrays(prepared(make, y)).astype("F32")
    estimator = umbel.sklearn.into(make(), model)
    narrow = X.astype(np.float32)
    train = getattr(estimator, "partial_fit", estimator.fit)
    train(narrow, y)
    assert umbel.sklearn.arrays(estimator).spec == model.spec
    assert umbel.sklearn.arrays(estimator) != model


def test_the_models_precision_counts_and_not_the_datas() -> None:
    model = umbel.sklearn.arrays(prepared(REGRESSORS["Ridge"], TARGET))
    estimator = umbel.sklearn.into(Ridge(), model)
    estimator.fit(X.astype(np.float32), TARGET.astype(np.float32))
    assert estimator.coef_.dtype == np.float32
    assert umbel.sklearn.arrays(estimator).spec == model.spec


def test_half_precision_is_refused_with_the_way_out() -> None:
    model = umbel.sklearn.arrays(prepared(REGRESSORS["Ridge"], TARGET))
    for dtype in ("F16", "BF16"):
        with pytest.raises(EntryError, match=f"'coef_' is {dtype}"):
            umbel.sklearn.into(Ridge(), model.astype(dtype))


def test_a_warm_start_goes_on_from_the_model() -> None:
    solved = LogisticRegression(tol=1e-10, max_iter=1000).fit(X, THREE)
    model = umbel.sklearn.arrays(solved)
    one = umbel.sklearn.into(LogisticRegression(warm_start=True, max_iter=1), model)
    one.fit(X, THREE)
    assert not umbel.sklearn.arrays(one).difference(model, rtol=1e-6, atol=1e-6)


def test_a_cold_start_is_warned_of() -> None:
    model = umbel.sklearn.arrays(umbel.sklearn.prepare(LogisticRegression(), features=4, classes=[0, 1]))
    with pytest.warns(UserWarning, match=r"make it LogisticRegression\(warm_start=True") as caught:
        umbel.sklearn.into(LogisticRegression(), model)
    assert caught[0].filename == __file__
    umbel.sklearn.into(SGDClassifier(), model)


def test_a_network_begins_as_its_own_fit_would() -> None:
    for options in ({}, {"activation": "logistic"}):
        network = MLPClassifier((6, 3), random_state=3, max_iter=1, learning_rate_init=1e-300, solver="sgd", **options)
        start = umbel.sklearn.prepare(clone(network), features=4, classes=[0, 1, 2])
        network.fit(X, THREE)
        for mine, its in zip(start.coefs_ + start.intercepts_, network.coefs_ + network.intercepts_, strict=True):
            assert np.array_equal(mine, its)


def test_a_network_resumes_as_if_it_had_never_left() -> None:
    """Without an inner optimizer's state there is nothing that does not travel."""
    options: dict[str, Any] = {"solver": "sgd", "momentum": 0.0, "shuffle": False, "random_state": 0}
    here = MLPClassifier(5, **options)
    for _ in range(4):
        here.partial_fit(X, THREE, classes=[0, 1, 2])
    there = umbel.sklearn.prepare(MLPClassifier(5, **options), features=4, classes=[0, 1, 2])
    for _ in range(4):
        there.partial_fit(X, THREE)
        there = umbel.sklearn.into(MLPClassifier(5, **options), umbel.sklearn.arrays(there))
    for mine, its in zip(there.coefs_, here.coefs_, strict=True):
        assert np.array_equal(mine, its)


# --- labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [["ill", "well"], ["a", "bb", "ccc"], [-1.0, 1.0], [False, True], [2, 5, 9], np.array(["é", "日本"], dtype=object)],
)
def test_labels_travel(labels: Any) -> None:
    known = np.unique(np.asarray(labels))
    y = known[THREE % len(known)]
    model = umbel.sklearn.arrays(umbel.sklearn.prepare(SGDClassifier(), features=4, classes=labels))
    assert model.spec.by_name["classes_"].role in ("counter", "frozen")
    client = umbel.sklearn.into(SGDClassifier(random_state=0), Arrays.from_bytes(bytes(model.to_bytes())))
    client.partial_fit(X, y)
    assert set(client.predict(X)) <= set(known)
    assert client.score(X, y) > 0.5
    assert umbel.sklearn.arrays(client).spec == model.spec


def test_partial_fit_knows_labels_that_the_client_lacks() -> None:
    model = umbel.sklearn.arrays(umbel.sklearn.prepare(SGDClassifier(), features=4, classes=[0, 1, 2]))
    for estimator in (SGDClassifier(), Perceptron(), MLPClassifier(3)):
        start = umbel.sklearn.arrays(umbel.sklearn.prepare(estimator, features=4, classes=[0, 1, 2]))
        umbel.sklearn.into(estimator, start)
        some = THREE != 1
        estimator.partial_fit(X[some], THREE[some])
        assert umbel.sklearn.arrays(estimator).spec == start.spec
    assert model["coef_"].shape == (3, 4)


def test_fit_without_a_label_says_what_to_do() -> None:
    model = umbel.sklearn.arrays(prepared(CLASSIFIERS["LogisticRegression"], THREE))
    estimator = umbel.sklearn.into(SGDClassifier(), model)
    some = THREE != 1
    estimator.fit(X[some], THREE[some])
    with pytest.raises(EntryError, match=r"fitted to the labels .*0.*2.*, the model has .*0.*1.*2") as caught:
        umbel.sklearn.arrays(estimator)
    assert caught.value.entry == "classes_"
    assert "partial_fit" in caught.value.advice
    assert "umbel.sklearn.cover" in caught.value.advice


def test_other_labels_of_the_same_number_are_noticed() -> None:
    model = umbel.sklearn.arrays(prepared(CLASSIFIERS["LogisticRegression"], BINARY))
    estimator = umbel.sklearn.into(LogisticRegression(warm_start=True), model)
    estimator.fit(X, BINARY + 1)
    with pytest.raises(EntryError, match="fitted to the labels"):
        umbel.sklearn.arrays(estimator)


@pytest.mark.parametrize("kind", ["array", "list", "sparse", "frame"])
def test_cover_adds_what_is_missing_and_changes_nothing_else(kind: str) -> None:
    some = THREE == 2
    known = X[some]
    x: Any = known
    if kind == "list":
        x = known.tolist()
    elif kind == "sparse":
        x = pytest.importorskip("scipy.sparse").csc_matrix(known)
    elif kind == "frame":
        x = pytest.importorskip("pandas").DataFrame(known)
    model = umbel.sklearn.arrays(prepared(CLASSIFIERS["LogisticRegression"], THREE))
    estimator = umbel.sklearn.into(LogisticRegression(warm_start=True), model)
    covered, y, weight = umbel.sklearn.cover(estimator, x, THREE[some])
    assert sorted(set(y)) == [0, 1, 2]
    assert (len(y), weight.sum()) == (some.sum() + 2, some.sum())
    estimator.fit(covered, y, sample_weight=weight)
    assert umbel.sklearn.arrays(estimator).spec == model.spec
    assert (estimator.predict(known) == 2).all()


def test_cover_does_not_change_the_solution() -> None:
    estimator = prepared(CLASSIFIERS["LogisticRegression"], THREE)
    x, y, weight = umbel.sklearn.cover(estimator, X, THREE, sample_weight=np.arange(80.0))
    assert np.array_equal(x, X)
    assert np.array_equal(y, THREE)
    assert np.array_equal(weight, np.arange(80.0))
    two = THREE != 0
    options: dict[str, Any] = {"tol": 1e-12, "max_iter": 5000}
    x, y, weight = umbel.sklearn.cover(estimator, X[two], THREE[two])
    got = LogisticRegression(**options).fit(x, y, sample_weight=weight)
    far = LogisticRegression(**options).fit(
        np.concatenate([X[two], X[:1]]), np.append(THREE[two], 0), sample_weight=np.append(np.ones(two.sum()), 1e-300)
    )
    assert np.allclose(got.coef_, far.coef_, atol=1e-6)


def test_cover_needs_labels_and_data() -> None:
    with pytest.raises(UsageError, match="knows no labels"):
        umbel.sklearn.cover(SGDClassifier(), X, BINARY)
    with pytest.raises(UsageError, match="no data"):
        umbel.sklearn.cover(prepared(SGDClassifier, BINARY), X[:0], BINARY[:0])


def test_labels_of_no_known_kind() -> None:
    with pytest.raises(EntryError, match="'classes_' holds"):
        umbel.sklearn.prepare(SGDClassifier(), features=4, classes=[b"a", b"b"])


def test_a_model_that_does_not_say_its_labels() -> None:
    bare = Arrays({"coef_": np.zeros((1, 4)), "intercept_": np.zeros(1)})
    with pytest.raises(UsageError, match="which labels this SGDClassifier"):
        umbel.sklearn.into(SGDClassifier(), bare)
    known = umbel.sklearn.into(prepared(SGDClassifier, BINARY), bare)
    assert umbel.sklearn.arrays(known) == bare


# --- names of features ----------------------------------------------------------------------------


def test_names_of_features_travel_and_are_checked() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["age", "sex", "chol", "fbs"])
    model = umbel.sklearn.arrays(umbel.sklearn.prepare(SGDClassifier(), features=list(frame.columns), classes=[0, 1]))
    client = umbel.sklearn.into(SGDClassifier(), model)
    client.partial_fit(frame, BINARY)
    client.predict(frame)
    assert umbel.sklearn.arrays(client).spec == model.spec
    with pytest.raises(ValueError, match="feature names should match"):
        client.predict(frame[["sex", "age", "chol", "fbs"]])
    client.fit(frame[["sex", "age", "chol", "fbs"]], BINARY)
    with pytest.raises(EntryError, match="fitted to the features") as caught:
        umbel.sklearn.arrays(client)
    assert "same columns" in caught.value.advice


def test_a_model_without_names_takes_frames_too() -> None:
    pandas = pytest.importorskip("pandas")
    model = umbel.sklearn.arrays(prepared(REGRESSORS["Ridge"], TARGET))
    client = umbel.sklearn.into(Ridge(), model)
    client.fit(pandas.DataFrame(X, columns=list("abcd")), TARGET)
    assert umbel.sklearn.arrays(client).spec == model.spec


# --- what goes wrong is said ----------------------------------------------------------------------


def test_an_estimator_that_was_never_fitted() -> None:
    with pytest.raises(UsageError, match="this SGDClassifier has learned nothing yet") as caught:
        umbel.sklearn.arrays(SGDClassifier())
    assert "prepare" in caught.value.advice


@pytest.mark.parametrize(
    "estimator", [make_pipeline(SGDClassifier()), LogisticRegressionCV(), object()], ids=lambda e: type(e).__name__
)
def test_an_unknown_estimator(estimator: Any) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: umbel.sklearn.arrays(estimator),
        lambda: umbel.sklearn.into(estimator, Arrays({})),
        lambda: umbel.sklearn.prepare(estimator, features=3),
    ]
    for call in calls:
        with pytest.raises(UsageError, match=f"does not know {type(estimator).__name__}") as caught:
            call()
        assert "plain NumPy" in caught.value.advice


def test_a_subclass_is_what_its_base_is() -> None:
    class Mine(SGDClassifier):  # type: ignore[misc]  # scikit-learn ships no types
        pass

    mine = umbel.sklearn.prepare(Mine(), features=4, classes=[0, 1])
    assert umbel.sklearn.arrays(mine)["coef_"].shape == (1, 4)


@pytest.mark.parametrize(
    ("estimator", "arguments", "what"),
    [
        (SGDClassifier(), {}, "all labels of all clients"),
        (SGDClassifier(), {"classes": [0, 1], "outputs": 2}, "no outputs="),
        (SGDClassifier(), {"classes": [1, 1]}, "of 1 label"),
        (Ridge(), {"classes": [0, 1]}, "no classes="),
        (SGDRegressor(), {"outputs": 2}, "no outputs="),
    ],
)
def test_arguments_of_prepare_that_make_no_sense(estimator: Any, arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        umbel.sklearn.prepare(estimator, features=4, **arguments)


def misfits() -> list[tuple[Any, dict[str, Any], str]]:
    zero, labels = np.zeros, np.arange(2)
    network = {"coefs_.0": zero((4, 5)), "intercepts_.0": zero(5), "coefs_.1": zero((5, 1)), "intercepts_.1": zero(1)}
    sgd, wide, flat = SGDClassifier(), MLPRegressor(hidden_layer_sizes=(3,)), MLPRegressor(hidden_layer_sizes=())
    return [
        (sgd, {"coef_": zero((3, 4)), "intercept_": zero(3), "classes_": labels}, r"'coef_' has shape \(3, 4\)"),
        (sgd, {"coef_": zero((1, 4)), "intercept_": zero(2), "classes_": labels}, "'intercept_' has shape"),
        (SGDRegressor(), {"coef_": zero((2, 4)), "intercept_": zero(2)}, "'coef_' has shape"),
        (Ridge(), {"coef_": zero((2, 4, 1)), "intercept_": zero(2)}, "'coef_' has shape"),
        (Ridge(), {"coef_": zero(4)}, "no entry 'intercept_'"),
        (Ridge(), {"coef": zero(4), "intercept_": zero(())}, "no entry 'coef'; the closest is 'coef_'"),
        (Ridge(), {"coef_": zero(4), "intercept_": zero(()), "classes_": labels}, "no entry 'classes_'"),
        (wide, network, r"'coefs_\.0' has shape \(4, 5\)"),
        (flat, {"coefs_.0": zero((4, 2)), "intercepts_.0": zero(1)}, r"'intercepts_\.0' has shape"),
    ]


@pytest.mark.parametrize(("estimator", "values", "what"), misfits())
def test_a_model_that_does_not_fit_the_estimator(estimator: Any, values: dict[str, Any], what: str) -> None:
    before = copy.deepcopy(vars(estimator))
    with pytest.raises(EntryError, match=what):
        umbel.sklearn.into(estimator, Arrays(values))
    assert vars(estimator) == before, "nothing was written"


def test_another_number_of_features_is_noticed() -> None:
    estimator = prepared(REGRESSORS["Ridge"], TARGET)
    estimator.fit(X[:, :3], TARGET)
    with pytest.raises(EntryError, match=r"'coef_' has shape \(3,\)"):
        umbel.sklearn.arrays(estimator)


def test_sparse_coefficients_say_what_to_do() -> None:
    pytest.importorskip("scipy")
    estimator = SGDClassifier().fit(X, BINARY).sparsify()
    with pytest.raises(EntryError, match="'coef_' is sparse") as caught:
        umbel.sklearn.arrays(estimator)
    assert "densify" in caught.value.advice
    assert len(umbel.sklearn.arrays(estimator.densify())) == 3


def test_what_is_no_model() -> None:
    with pytest.raises(UsageError, match="not dict"):
        umbel.sklearn.into(Ridge(), {"coef_": np.zeros(4)})  # type: ignore[arg-type]


def test_entries_that_the_model_lacks_stay() -> None:
    estimator = Ridge().fit(X, TARGET)
    before = estimator.intercept_
    umbel.sklearn.into(estimator, Arrays({"coef_": np.zeros(4)}))
    assert estimator.intercept_ == before
    assert estimator.predict(X) == pytest.approx(before)

"""scikit-learn: what an estimator learned as arrays, and back.

    # on the server: a model before anybody saw data
    model = umbel.sklearn.arrays(umbel.sklearn.prepare(SGDClassifier(), features=13, classes=[0, 1]))

    # on a client
    estimator = umbel.sklearn.into(SGDClassifier(), model)
    estimator.partial_fit(x, y)
    return umbel.Update(model=umbel.sklearn.arrays(estimator), weight=len(x))

How training goes on from the model, by estimator:

- ``partial_fit``: SGDClassifier, SGDRegressor, Perceptron, PassiveAggressiveClassifier, PassiveAggressiveRegressor,
  MLPClassifier, MLPRegressor. It knows all labels of the model, also those that this client lacks (MLPClassifier only
  with ``warm_start=False``).
- ``fit`` with ``warm_start=True``: these and LogisticRegression, Lasso, ElasticNet. Without ``warm_start``, ``fit``
  forgets the model. It knows only the labels it sees: see `cover`.
- ``fit`` starts anew whatever it is given: LinearRegression, Ridge, RidgeClassifier, LinearSVC, LinearSVR. Their
  mean over clients is a model all the same, after one round.

Labels and feature names travel with the model, so that all clients have the same ones in the same order. What else
``fit`` leaves (step counters, the state of an optimizer inside) does not: each round begins without, as a new
estimator does. So give SGD ``learning_rate="constant"`` and an ``eta0`` from a schedule in ``ctx.config``: its own
schedules start over each round. Precision stays: float64 models are float64 arrays; for ``partial_fit`` of SGD, ``x``
must have the precision of the model.

Models in plain NumPy need no adapter: a dict of arrays is a model (``umbel.Update(model={"w": w})``).
"""

from __future__ import annotations

from umbel.sklearn.estimator import arrays, cover, into, prepare

__all__ = ["arrays", "cover", "into", "prepare"]

"""JAX: trees of arrays to models and back, and local training that is declared.

    model = umbel.jax.arrays(params)                    # a tree of arrays as a model
    params = umbel.jax.into(params, model)              # a tree like this one, with the model's values
    client.train(umbel.jax.local_sgd(loss, lr=0.1, batch=10))       # SGD on loss(params, inputs, targets)

Trees are nested dicts, lists, tuples, NamedTuples, and whatever else is registered with JAX: the parameters of Flax,
Haiku or Equinox are such trees. Loaded on first touch of ``umbel.jax``; Umbel itself never imports JAX.
"""

from __future__ import annotations

from umbel.jax.declared import LocalSgd, local_sgd
from umbel.jax.tree import arrays, into

__all__ = ["LocalSgd", "arrays", "into", "local_sgd"]

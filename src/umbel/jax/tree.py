"""The values of a tree of arrays as a model, and back.

Our code copies each array once in each direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from umbel.arrays import Array, Arrays
from umbel.errors import EntryError, UsageError
from umbel.spec import STORAGE, Entries, Role

_DTYPES = {dtype.name: code for code, dtype in STORAGE.items() if code != "BF16"} | {"bfloat16": "BF16"}


def arrays(tree: Any, roles: Mapping[str, Role] | Sequence[Entries] = ()) -> Arrays:
    """The leaves of a tree as a model, named by their paths: ``{"layer": [{"w": w}]}`` has ``layer/0/w``.

    Floats are "trained" and integers "counter", unless ``roles`` says otherwise. Dtypes stay; numbers that are no
    arrays get the dtype that JAX gives them.

    Args:
        tree: nested dicts, lists, tuples, NamedTuples, or other registered nodes, of arrays.
        roles: roles by name, or choices such as ``umbel.entries("*/mean", role="buffer")``.

    Raises:
        EntryError: a leaf that Umbel cannot carry, or two of one name.
    """
    return Arrays({name: _values(name, leaf) for name, leaf in leaves(tree).items()}, roles=roles)


def into(tree: Any, model: Arrays) -> Any:
    """A tree like this one, with a model's values. The tree itself does not change, and shares no memory with it.

    Leaves that the model does not have stay as they are.

    Args:
        tree: the structure; its leaves are arrays, or ``jax.ShapeDtypeStruct``.
        model: the model; each entry needs the shape and the dtype of its leaf.

    Raises:
        EntryError: an entry that the tree does not have, or has with another shape or dtype.
    """
    found = leaves(tree)
    check_fits(found, model)
    values = [value_of(model, name) if name in model else leaf for name, leaf in found.items()]
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(tree), values)


def leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by the names that they have in a model.

    Raises:
        EntryError: two have one name.
    """
    found: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = "/".join(_part(key) for key in path) or "value"
        if name in found:
            raise EntryError(
                f"two leaves of the tree are called {name!r}", entry=name, advice="leave '/' out of the keys of dicts"
            )
        found[name] = leaf
    return found


def check_fits(found: Mapping[str, Any], model: Arrays) -> None:
    """Refuse a model that does not fit these leaves.

    Raises:
        EntryError: names the entry.
    """
    if not isinstance(model, Arrays):
        raise UsageError(
            f"a model is umbel.Arrays, not {type(model).__name__}",
            advice="the tree comes first: umbel.jax.into(params, model)",
        )
    for name in model:
        if name not in found:
            raise EntryError(
                f"the tree has no leaf {name!r}",
                entry=name,
                advice=f"it has {', '.join(list(found)[:8])}{', ...' if len(found) > 8 else ''}",
            )
        e, leaf = model.spec.by_name[name], found[name]
        shape, dtype = (tuple(leaf.shape), leaf.dtype) if hasattr(leaf, "dtype") else ((), jnp.asarray(leaf).dtype)
        if e.shape != shape:
            raise EntryError(f"entry {name!r} has shape {e.shape} in the model and {shape} in the tree", entry=name)
        if e.dtype != _DTYPES.get(dtype.name):
            raise EntryError(
                f"entry {name!r} is {e.dtype} in the model and {dtype.name} in the tree",
                entry=name,
                advice=f"convert one of them: model.astype({_DTYPES.get(dtype.name, 'F32')!r}); JAX makes float64 only "
                "with jax_enable_x64",
            )


def value_of(model: Arrays, name: str) -> jax.Array:
    """An entry of a model as an array of JAX's own."""
    raw = model.raw(name)
    return jnp.array(raw.view(jnp.bfloat16) if model.spec.by_name[name].dtype == "BF16" else raw)


def _part(key: Any) -> str:
    """A step of a path: the key of a dict, the place in a list, the name of a field."""
    for what in ("key", "idx", "name"):
        if hasattr(key, what):
            return str(getattr(key, what))
    return str(key)


def _values(name: str, leaf: Any) -> Array:
    try:
        value = jnp.asarray(leaf)
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            raise TypeError(f"it holds keys of random numbers ({value.dtype})")
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise EntryError(
            f"leaf {name!r} is a {type(leaf).__name__}, which is no array: {error}",
            entry=name,
            advice="keep what is no array of numbers out of the tree",
        ) from error


__all__ = ["arrays", "check_fits", "into", "leaves", "value_of"]

"""How a data set is split among clients: pure functions of labels and a seed.

Every scheme takes labels (or how many samples there are, or ids, or values) and returns a
``Partition``: one array of sample indexes per client. All samples are used, each exactly once. The
same arguments give the same partition; how many samples of each class a client gets depends on the
labels as a multiset, never on their order or on what holds them.
"""

from __future__ import annotations

from umbel.partition.columns import vertical
from umbel.partition.feature_skew import continuous
from umbel.partition.figure import plot
from umbel.partition.heterogeneity import Divergence, class_counts, earth_movers, jensen_shannon
from umbel.partition.identity import natural, natural_groups
from umbel.partition.label_skew import dirichlet, distribution, inner_dirichlet
from umbel.partition.limited_classes import pathological, shards
from umbel.partition.partition import Partition
from umbel.partition.quantity import exponential, iid, linear, sizes, square

__all__ = [
    "Divergence",
    "Partition",
    "class_counts",
    "continuous",
    "dirichlet",
    "distribution",
    "earth_movers",
    "exponential",
    "iid",
    "inner_dirichlet",
    "jensen_shannon",
    "linear",
    "natural",
    "natural_groups",
    "pathological",
    "plot",
    "shards",
    "sizes",
    "square",
    "vertical",
]

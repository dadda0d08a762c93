"""Who is in the cohort."""

from __future__ import annotations

from umbel.sample.base import Population, Sampler
from umbel.sample.count import count
from umbel.sample.cyclic import cyclic
from umbel.sample.everyone import everyone
from umbel.sample.fraction import fraction
from umbel.sample.poisson import poisson
from umbel.sample.weighted import weighted

__all__ = ["Population", "Sampler", "count", "cyclic", "everyone", "fraction", "poisson", "weighted"]

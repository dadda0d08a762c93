"""The patients of four hospitals, prepared as the FLamby benchmark prepares them. Needs NumPy alone.

Each patient is 13 numbers (`FEATURES`) and a label: 1 with heart disease, 0 without. Patients with a missing value
are left out. `split.csv` says who is for training and who for testing; `make_split.py` made it. README.md, beside
the package, says whose data this is.

Source: Ogier du Terrail et al., FLamby, NeurIPS 2022 Datasets and Benchmarks, Fed-Heart-Disease.
    https://arxiv.org/abs/2210.04620; flamby/datasets/fed_heart_disease/dataset.py at owkin/FLamby, commit edacf54.
Differs: one file for all hospitals instead of four, in words instead of codes; patient 304, whom that file counts to
    Cleveland, is the first of Hungary's. The arithmetic is float64.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).parent
HOSPITALS = {  # the name of the client, and what the file calls the hospital
    "cleveland": "Cleveland",
    "hungary": "Hungary",
    "switzerland": "Switzerland",
    "long-beach": "VA Long Beach",
}
NUMBERS = ("age", "sex", "trestbps", "chol", "fbs", "thalch", "exang", "oldpeak")
FEATURES = (*NUMBERS, "cp=2", "cp=3", "cp=4", "restecg=1", "restecg=2")

WORDS = {"Male": 1.0, "Female": 0.0, "TRUE": 1.0, "FALSE": 0.0}
CHEST_PAIN = {"typical angina": 1, "atypical angina": 2, "non-anginal": 3, "asymptomatic": 4}
ECG_AT_REST = {"normal": 0, "st-t abnormality": 1, "lv hypertrophy": 2}

Row = dict[str, str]
Floats = npt.NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True)
class Patients:
    """Standardised features and labels of some patients."""

    x: Floats  # (patients, 13)
    y: Floats  # (patients,), 0 or 1

    def __len__(self) -> int:
        return len(self.y)


@final
@dataclass(frozen=True, slots=True)
class Hospital:
    """The patients that a model is trained with, and those it is tested on."""

    train: Patients
    test: Patients

    def __len__(self) -> int:
        return len(self.train) + len(self.test)


def load(*names: str) -> Hospital:
    """One hospital's patients; or with several names, the patients of these hospitals as if it were one.

    The features are standardised with the mean and the standard deviation of the training patients that are loaded
    together. So `load("cleveland")` needs nobody else's data; `load(*HOSPITALS)` is what a central database would be.

    Args:
        names: keys of `HOSPITALS`.

    Raises:
        ValueError: there is no such hospital.
    """
    parts = _parts()
    patients = [row for name in names for row in complete(rows(name))]
    x = np.array([features(row) for row in patients])
    y = np.array([float(row["num"] != "0") for row in patients])
    train = np.array([parts[row["id"]] == "train" for row in patients])
    mean, deviation = x[train].mean(axis=0), x[train].std(axis=0, ddof=1)
    x = (x - mean) / (deviation + 1e-9)  # Switzerland knows nobody's cholesterol: all zeros
    return Hospital(Patients(x[train], y[train]), Patients(x[~train], y[~train]))


def join(several: Iterable[Hospital]) -> Hospital:
    """The patients of several hospitals in one place, each as its own hospital standardised them."""
    each = list(several)
    return Hospital(_join([one.train for one in each]), _join([one.test for one in each]))


def _join(groups: list[Patients]) -> Patients:
    return Patients(np.concatenate([g.x for g in groups]), np.concatenate([g.y for g in groups]))


def rows(name: str) -> list[Row]:
    """All patients of one hospital as they stand in the file, in its order."""
    if name not in HOSPITALS:
        raise ValueError(f"there is no hospital {name!r}; take one of {', '.join(HOSPITALS)}")
    wanted = HOSPITALS[name]
    return [row for row in _read(HERE / "heart_disease_uci.csv") if _hospital(row) == wanted]


def complete(patients: list[Row]) -> list[Row]:
    """The patients of whom everything is known that `features` needs."""
    needed = (*NUMBERS, "cp", "restecg")
    return [row for row in patients if all(row[column] for column in needed)]


def features(row: Row) -> list[float]:
    """The 13 numbers of one patient, in the order of `FEATURES`; the first of each category is all zeros."""
    numbers = [WORDS[row[c]] if row[c] in WORDS else float(row[c]) for c in NUMBERS]
    pain, ecg = CHEST_PAIN[row["cp"]], ECG_AT_REST[row["restecg"]]
    return [*numbers, *(float(pain == k) for k in (2, 3, 4)), *(float(ecg == k) for k in (1, 2))]


def _hospital(row: Row) -> str:
    return "Hungary" if row["id"] == "304" else row["dataset"]


def _parts() -> dict[str, str]:
    return {row["id"]: row["part"] for row in _read(HERE / "split.csv")}


def _read(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)

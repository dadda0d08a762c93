"""Writes heart_disease/split.csv: who is for training and who for testing. Needs scikit-learn.

Two thirds of each hospital's complete patients are for training, drawn by scikit-learn with random_state 43 and
stratified by the label, where each label occurs more than twice. In Switzerland all but one have heart disease, so
that there the draw is not stratified.

Source: as in heart_disease/hospitals.py.
"""

from __future__ import annotations

import csv

import numpy as np
from heart_disease import hospitals
from sklearn.model_selection import train_test_split


def split(labels: list[int]) -> list[str]:
    """Say "train" or "test" for each patient of one hospital."""
    indices = np.arange(len(labels))
    stratify = labels if min(labels.count(0), labels.count(1)) > 2 else None
    train, _ = train_test_split(indices, test_size=1 - 0.66, train_size=0.66, random_state=43, stratify=stratify)
    return np.where(np.isin(indices, train), "train", "test").tolist()


def main() -> None:
    with (hospitals.HERE / "split.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["id", "part"])
        for name in hospitals.HOSPITALS:
            patients = hospitals.complete(hospitals.rows(name))
            parts = split([int(row["num"] != "0") for row in patients])
            out.writerows((row["id"], part) for row, part in zip(patients, parts, strict=True))


if __name__ == "__main__":
    main()

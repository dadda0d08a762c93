from __future__ import annotations

import numpy as np

from umbel.partition.allocation import apportion, fit, raise_minimum

# The first United States census and the apportionment of 120 seats by Hamilton's method, the bill that President
# Washington vetoed in 1792. Source: Balinski and Young, Fair Representation, 1982, chapter 2 and appendix B.
CENSUS_1790 = {
    "Virginia": (630560, 21),
    "Massachusetts": (475327, 16),
    "Pennsylvania": (432879, 14),
    "North Carolina": (353523, 12),
    "New York": (331589, 11),
    "Maryland": (278514, 9),
    "Connecticut": (236841, 8),
    "South Carolina": (206236, 7),
    "New Jersey": (179570, 6),
    "New Hampshire": (141822, 5),
    "Vermont": (85533, 3),
    "Georgia": (70835, 2),
    "Kentucky": (68705, 2),
    "Rhode Island": (68446, 2),
    "Delaware": (55540, 2),
}


def test_apportion_is_hamiltons_method() -> None:
    people, seats = np.array(list(CENSUS_1790.values())).T
    for weights in (people[None], people[None].astype(np.float64), people[None] * 1e290):
        np.testing.assert_array_equal(apportion(weights, np.array([120]))[0], seats)


def test_ties_go_to_the_left_or_to_anyone() -> None:
    even = np.ones((200, 4))
    assert (apportion(even, np.full(200, 2)) == [1, 1, 0, 0]).all()
    drawn = apportion(even, np.full(200, 2), np.random.default_rng(0)).sum(axis=0)
    assert drawn.sum() == 400
    assert (abs(drawn - 100) < 30).all()  # four standard deviations


def test_raise_minimum_takes_from_the_largest_in_their_own_proportions() -> None:
    before = np.array([[60, 0, 10, 0], [30, 0, 0, 1], [10, 0, 0, 0]])
    after = raise_minimum(before, 6, np.random.default_rng(0))
    assert after[:, 0].tolist() == [60 - 7, 30 - 3, 10 - 1]  # 11 samples of 100: 6.6, 3.3, 1.1
    assert after[:, 2].tolist() == [10, 0, 0]
    assert after.sum(axis=0).tolist() == [89, 6, 10, 6]


def test_raise_minimum_leaves_alone_what_is_large_enough() -> None:
    table = np.array([[3, 4], [0, 1]])
    assert raise_minimum(table, 3, np.random.default_rng(0)) is table


def test_fit_passes_on_what_does_not_fit() -> None:
    rng = np.random.default_rng(0)
    certain = np.array([[0.0, -1e301, -2e301], [0.0, -1e301, -2e301]])  # both want column 0, then 1, then 2
    np.testing.assert_array_equal(fit(certain, np.array([6, 6]), np.array([4, 4, 4]), rng), [[2, 2, 2], [2, 2, 2]])
    np.testing.assert_array_equal(fit(np.zeros((1, 3)), np.array([6]), np.array([0, 5, 1]), rng), [[0, 5, 1]])

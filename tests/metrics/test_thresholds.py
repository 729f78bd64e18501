"""Times to a threshold: by hand, by enumeration, and against the beta distribution."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import beta

from fedjax_rl.metrics import (
    quantile_interval,
    rounds_to_threshold,
    share_interval,
    threshold_statistics,
    time_to_threshold,
)


def test_first_time_and_for_good() -> None:
    x = np.array([100.0, 200, 300, 400, 500])
    values = np.array([1.0, 6, 4, 5, 9])
    assert time_to_threshold(x, values, 5) == 200
    assert time_to_threshold(x, values, 5, for_good=True) == 400
    assert time_to_threshold(x, values, 9, for_good=True) == 500
    assert time_to_threshold(x, values, 10) == math.inf
    assert time_to_threshold(x, values, 10, for_good=True) == math.inf
    assert time_to_threshold(x, values[::-1], 5, for_good=True) == math.inf
    assert (rounds_to_threshold(values, 5), rounds_to_threshold(values, 5, for_good=True)) == (2, 4)
    with pytest.raises(ValueError, match="one length"):
        time_to_threshold(x, values[:3], 5)


def test_seeds_that_never_reach_are_not_forgotten() -> None:
    times = np.array([10.0, np.inf, 30, np.inf, 20])
    found = threshold_statistics(times, levels=(0.2, 0.5, 0.6, 0.7))
    assert found.reached == 3
    assert found.share.value == 0.6
    # A share of the five seeds had reached it by then: 3 of 5 by 30, and 70 % of them never.
    assert [found.quantiles[level].value for level in (0.2, 0.5, 0.6, 0.7)] == [10, 30, 30, np.inf]
    # Seeds that succeed alone would give a median of 20.
    nobody = threshold_statistics(np.full(4, np.inf))
    assert nobody.reached == 0
    assert all(quantile.value == np.inf for quantile in nobody.quantiles.values())
    assert nobody.share.low == 0


def coverage(count: int, level: float, low: int, high: int) -> float:
    """P(X_(low) <= true quantile < X_(high)) over all 2^K patterns of values at or below the quantile."""
    total = 0.0
    for pattern in itertools.product((True, False), repeat=count):
        below = sum(pattern)
        if low <= below < high:
            total += level**below * (1 - level) ** (count - below)
    return total


@pytest.mark.parametrize("level", [0.1, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("count", [1, 3, 5, 6, 9, 12])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_the_interval_of_a_quantile_covers_it(count: int, level: float, confidence: float) -> None:
    values = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))  # each value is its own rank
    _, low, high = quantile_interval(values, level, confidence=confidence)
    low_rank = 0 if low == -np.inf else int(low)
    high_rank = count + 1 if high == np.inf else int(high)
    tail = (1 - confidence) / 2
    assert coverage(count, level, low_rank, high_rank) >= confidence - 1e-12
    # Each end is as near as its half of the error allows.
    assert coverage(count, level, 0, low_rank) <= tail + 1e-12 < coverage(count, level, 0, low_rank + 1)
    assert coverage(count, level, high_rank, count + 1) <= tail + 1e-12
    if high_rank > 1:
        assert coverage(count, level, high_rank - 1, count + 1) > tail


def test_the_median_of_six_is_the_first_that_has_an_interval() -> None:
    assert quantile_interval(np.arange(5.0), 0.5) == (2, -np.inf, np.inf)
    assert quantile_interval(np.arange(6.0), 0.5) == (2, 0, 5)
    times = np.array([1.0, 2, 3, 4, 5, np.inf])
    assert quantile_interval(times, 0.5) == (3, 1, np.inf)


@pytest.mark.parametrize("count", [3, 4, 7, 10, 20])
def test_the_quantile_is_an_order_statistic(count: int) -> None:
    values = np.random.default_rng(count).permutation(np.arange(1.0, count + 1))
    for level in (0.05, 0.1, 0.2, 0.25, 0.5, 0.6, 0.7, 0.75, 0.9):
        smallest = next(x for x in range(1, count + 1) if np.mean(values <= x) >= level - 1e-9)
        assert quantile_interval(values, level).value == smallest


@pytest.mark.parametrize(("successes", "count"), [(0, 5), (1, 5), (3, 5), (5, 5), (17, 20), (2, 300)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_interval_of_a_share_is_clopper_and_pearsons(successes: int, count: int, confidence: float) -> None:
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, successes, count - successes + 1) if successes else 0.0
    high = beta.ppf(1 - tail, successes + 1, count - successes) if successes < count else 1.0
    found = share_interval(successes, count, confidence=confidence)
    np.testing.assert_allclose(found, (successes / count, low, high), atol=1e-9)


@pytest.mark.parametrize(("successes", "count"), [(-1, 5), (6, 5), (0, 0)])
def test_a_wrong_count_is_told(successes: int, count: int) -> None:
    with pytest.raises(ValueError, match="successes must lie in"):
        share_interval(successes, count)


@pytest.mark.parametrize("level", [0.0, 1.0, 50])
def test_a_wrong_level_is_told(level: float) -> None:
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\)"):
        quantile_interval(np.ones(3), level)

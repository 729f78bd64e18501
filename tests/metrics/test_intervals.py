"""Intervals over seeds: all resamples of a few values listed one by one, closed forms, and coverage."""

import itertools

import numpy as np
import pytest

from fedjax_rl.metrics import (
    bootstrap_interval,
    interquartile_mean,
    interquartile_mean_interval,
    paired_difference,
    ratio_of_means,
    unpaired_difference,
)


LEVELS = (0.025, 0.975)
MANY = 200_000


def resamples(count: int) -> np.ndarray:
    """All K^K equally likely bootstrap samples of K rows, i64[K^K, K]."""
    return np.array(list(itertools.product(range(count), repeat=count)))


def brackets(exact: np.ndarray, low: float, high: float) -> None:
    """Asserts that an interval from `MANY` resamples lies at the exact distribution's percentiles.

    The share of resamples below the 2.5 % percentile has a standard deviation of sqrt(0.025 0.975 / MANY) = 3.5e-4: it
    is off by more than 0.004, eleven of them, with probability below 1e-25.
    """
    for level, found in zip(LEVELS, (low, high), strict=True):
        assert np.quantile(exact, level - 0.004, method="lower") <= found + 1e-9
        assert found - 1e-9 <= np.quantile(exact, level + 0.004, method="higher")


def plain_middle_half(values: np.ndarray) -> float:
    """The mean without the lowest and the highest quarter, one value after the other."""
    rest = sorted(float(value) for value in values)
    for _ in range(len(values) // 4):
        rest.remove(min(rest))
        rest.remove(max(rest))
    return sum(rest) / len(rest)


# ---------------------------------------------------------------- the mean


def test_two_values_are_their_own_interval() -> None:
    """Each mean (a, (a + b) / 2, b) has a probability of at least 1 / 4."""
    low, high = bootstrap_interval(np.array([[3.0, 1.0], [7.0, 1.0]]))
    np.testing.assert_array_equal(low, [3, 1])
    np.testing.assert_array_equal(high, [7, 1])


def test_the_mean_against_all_resamples() -> None:
    values = np.array([0.0, 1.0, 5.0, 7.5, 30.0])
    low, high = bootstrap_interval(values, num_resamples=MANY)
    brackets(values[resamples(5)].mean(1), float(low), float(high))


def test_coverage_of_the_mean() -> None:
    """Of 1500 data sets of 40 exponential values each, the share whose interval holds the true mean 1.

    If the coverage of the nominal 95 % interval is between 0.91 and 0.96, the number is in [1290, 1485] but for a
    probability below 1e-8 (by the normal law: 6.7 and 5.9 standard deviations from the ends).
    """
    values = np.random.default_rng(5).exponential(size=(40, 1500))
    low, high = bootstrap_interval(values, num_resamples=1000)
    assert 1290 <= np.sum((low <= 1) & (high >= 1)) <= 1485


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_a_wrong_confidence_is_told(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"confidence must lie in \(0, 1\)"):
        bootstrap_interval(np.arange(3.0), confidence=confidence)
    with pytest.raises(ValueError, match=r"confidence must lie in \(0, 1\)"):
        interquartile_mean_interval(np.arange(3.0), confidence=confidence)


# ---------------------------------------------------------------- the interquartile mean


@pytest.mark.parametrize("count", [1, 3, 4, 7, 8, 21])
def test_the_middle_half(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    assert interquartile_mean(values) == pytest.approx(plain_middle_half(values))
    both = interquartile_mean(np.stack([values, 10 * values], 1))
    np.testing.assert_allclose(both, plain_middle_half(values) * np.array([1, 10]))


def test_an_outlier_does_not_move_the_interquartile_mean() -> None:
    values = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])
    assert interquartile_mean(values) == 4.5  # of 3, 4, 5, 6
    assert interquartile_mean(np.append(values[:-1], 1e9)) == 4.5


def test_the_interquartile_mean_against_all_resamples() -> None:
    values = np.array([0.0, 1.0, 5.0, 7.5, 30.0])
    found = interquartile_mean_interval(values, num_resamples=MANY)
    assert found.value == pytest.approx((1 + 5 + 7.5) / 3)
    brackets(np.array([plain_middle_half(row) for row in values[resamples(5)]]), found.low, found.high)


def test_tasks_are_strata() -> None:
    """All pairs of resamples of two tasks: each task keeps its number of runs."""
    values = np.array([[0.0, 100.0], [2.0, 101.0], [7.0, 150.0]])
    found = interquartile_mean_interval(values, num_resamples=MANY)
    first, second = values[resamples(3), 0], values[resamples(3), 1]
    both = [np.concatenate([x, y]) for x in first for y in second]
    brackets(np.array([plain_middle_half(row) for row in both]), found.low, found.high)
    # Were rows of both tasks drawn from one urn, resamples of the upper task alone would reach beyond 100.
    assert found.high < 100


def test_portions_change_only_the_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(12, 3))
    whole = interquartile_mean_interval(values, num_resamples=20_000)
    monkeypatch.setattr("fedjax_rl.metrics._intervals._VALUES_AT_A_TIME", 36 * 777)
    parts = interquartile_mean_interval(values, num_resamples=20_000)
    np.testing.assert_allclose(parts, whole, atol=0.02)


# ---------------------------------------------------------------- differences and ratios


def test_the_paired_difference_against_all_resamples() -> None:
    first, second = np.array([1.0, 5, 9, 20, 50]), np.array([2.0, 7, 8, 26, 57])
    found = paired_difference(first, second, num_resamples=MANY)
    assert found.value == pytest.approx(3.0)
    brackets((second - first)[resamples(5)].mean(1), found.low, found.high)


def test_the_unpaired_difference_against_all_resamples() -> None:
    first, second = np.array([1.0, 5, 9, 20]), np.array([30.0, 31, 50])
    found = unpaired_difference(first, second, num_resamples=MANY)
    assert found.value == pytest.approx(37 - 8.75)
    means = first[resamples(4)].mean(1), second[resamples(3)].mean(1)
    brackets((means[1][None] - means[0][:, None]).ravel(), found.low, found.high)


def test_pairing_removes_what_the_seeds_share() -> None:
    rng = np.random.default_rng(1)
    shared = 100 * rng.normal(size=30)
    first, second = shared + rng.normal(size=30), shared + 2 + rng.normal(size=30)
    paired, unpaired = paired_difference(first, second), unpaired_difference(first, second)
    assert paired.value == pytest.approx(unpaired.value)
    assert 0 < paired.low < paired.high < 4
    assert unpaired.low < -20
    assert unpaired.high > 20


def test_a_constant_difference_is_certain() -> None:
    first = np.random.default_rng(2).normal(size=10)
    np.testing.assert_allclose(paired_difference(first, first + 3), (3, 3, 3))
    np.testing.assert_allclose(ratio_of_means(4 * (first + 5), first + 5, paired=True), (4, 4, 4))


@pytest.mark.parametrize("paired", [True, False])
def test_the_ratio_against_all_resamples(paired: bool) -> None:
    numerator, denominator = np.array([10.0, 12, 30, 18]), np.array([2.0, 5, 3, 4])
    found = ratio_of_means(numerator, denominator, paired=paired, num_resamples=MANY)
    assert found.value == pytest.approx(5.0)
    above, below = numerator[resamples(4)].mean(1), denominator[resamples(4)].mean(1)
    exact = above / below if paired else (above[:, None] / below[None]).ravel()
    brackets(exact, found.low, found.high)


def test_the_ratio_agrees_with_fieller() -> None:
    """With 400 seeds the means are normal; Fieller's interval solves (a - r b)^2 = z^2 var(a - r b) for r."""
    rng = np.random.default_rng(3)
    numerator, denominator = 3 + rng.normal(size=400), 1 + rng.normal(size=400)
    found = ratio_of_means(numerator, denominator, paired=False, num_resamples=20_000)
    a, b = numerator.mean(), denominator.mean()
    va, vb, z2 = numerator.var() / 400, denominator.var() / 400, 1.959964**2
    low, high = np.sort(np.roots([b**2 - z2 * vb, -2 * a * b, a**2 - z2 * va]))
    np.testing.assert_allclose((found.low, found.high), (low, high), rtol=0.01)


def test_a_denominator_that_may_be_zero_bounds_nothing() -> None:
    rng = np.random.default_rng(4)
    found = ratio_of_means(5 + rng.normal(size=20), 0.1 + rng.normal(size=20), paired=True)
    assert (found.low, found.high) == (-np.inf, np.inf)
    with pytest.raises(ValueError, match="mean of denominator is zero"):
        ratio_of_means(np.ones(2), np.array([-1.0, 1.0]), paired=True)


@pytest.mark.parametrize("sign", [1, -1])
def test_denominators_beyond_zero_belong_to_the_upper_tail(sign: int) -> None:
    """A mean of 2.2 standard errors: about 1.4 % of the resamples are on the other side of zero."""
    denominator = np.linspace(-1, 1, 101)
    denominator = sign * (denominator + 2.2 * denominator.std() / np.sqrt(101))
    numerator = 1 + 0.01 * denominator
    found = ratio_of_means(numerator, denominator, paired=True, num_resamples=20_000)
    resampled = denominator[np.random.default_rng(9).integers(0, 101, (20_000, 101))].mean(1)
    assert 0.005 < np.mean(resampled * sign < 0) < 0.025
    assert found.value * sign > 0
    assert found.low * sign > 0  # the flipped ones are not negative ratios in the lower tail
    assert found.high * sign > 0
    assert max(abs(found.low), abs(found.high)) > 5 * abs(found.value)


def test_a_single_seed_has_no_interval() -> None:
    one, three = np.array([2.0]), np.array([3.0, 4.0, 8.0])
    for found, value in (
        (interquartile_mean_interval(one), 2),
        (paired_difference(one, 3 * one), 4),
        (unpaired_difference(one, three), 3),
        (unpaired_difference(three, one), -3),
        (ratio_of_means(three, one, paired=False), 2.5),
        (ratio_of_means(one, three, paired=False), 0.4),
    ):
        assert found.value == pytest.approx(value)
        assert np.isnan(found.low)
        assert np.isnan(found.high)


def test_pairs_need_equal_seeds() -> None:
    with pytest.raises(ValueError, match="same seeds on both sides, got 3 and 2"):
        paired_difference(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="unpaired_difference or paired=False"):
        ratio_of_means(np.ones(3), np.ones(2), paired=True)

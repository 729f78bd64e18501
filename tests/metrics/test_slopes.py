"""Exponents against the normal equations, and how often their standard errors cover the truth."""

import math

import numpy as np
import pytest

from fedjax_rl.metrics import log_log_slope


def test_powers_are_recovered() -> None:
    x = np.asarray([1.0, 3.0, 10.0, 200.0])
    for exponent in (-1.0, 0.0, 2.5):
        found = log_log_slope(x, 7 * x**exponent)
        np.testing.assert_allclose([found.value, found.intercept], [exponent, np.log(7)], atol=1e-12)
        np.testing.assert_allclose(found.standard_error, 0, atol=1e-12)


def test_against_the_normal_equations() -> None:
    rng = np.random.default_rng(0)
    x, y, error = rng.uniform(1, 9, 12), rng.uniform(1, 9, 12), rng.uniform(0.1, 1, 12)
    design = np.stack([np.log(x), np.ones(12)], 1)
    plain, covariance = np.polyfit(np.log(x), np.log(y), 1, cov=True)
    found = log_log_slope(x, y)
    np.testing.assert_allclose([found.value, found.intercept], plain)
    np.testing.assert_allclose(found.standard_error, np.sqrt(covariance[0, 0]))
    weights = np.diag((y / error) ** 2)
    inverse = np.linalg.inv(design.T @ weights @ design)
    found = log_log_slope(x, y, error)
    np.testing.assert_allclose([found.value, found.intercept], inverse @ design.T @ weights @ np.log(y))
    np.testing.assert_allclose(found.standard_error, np.sqrt(inverse[0, 0]))


def test_standard_error_covers_the_truth() -> None:
    # n = 4000 lines through 6 points with a noise of 1 %; (slope - 1) / standard error is standard normal but for terms
    # of that size. The share within 1.96 is 0.95 +- 0.0034; 4.4 of these errors (0.015) are missed once in 10^5.
    rng = np.random.default_rng(1)
    x = np.asarray([1.0, 2, 4, 8, 16, 32])
    hits = 0
    for _ in range(4000):
        found = log_log_slope(x, 5 * x * (1 + 0.01 * rng.normal(size=6)), 0.05 * x)
        hits += abs(found.value - 1) < 1.96 * found.standard_error
    assert abs(hits / 4000 - 0.95) < 0.015


def test_two_points_have_no_scatter() -> None:
    found = log_log_slope(np.asarray([1.0, 10.0]), np.asarray([1.0, 100.0]))
    assert found.value == pytest.approx(2)
    assert math.isnan(found.standard_error)
    known = log_log_slope(np.asarray([1.0, 10.0]), np.asarray([1.0, 100.0]), np.asarray([0.1, 10.0]))
    assert known.standard_error == pytest.approx(0.1 * math.sqrt(2) / math.log(10))


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        ([1, 2], [1, 0], None, r"y\[1\] must be positive and finite, got 0.0; leave the point out"),
        ([1, np.inf], [1, 1], None, r"x\[1\] must be positive and finite, got inf"),
        ([1, 2], [1, 1], [0.1, 0.0], r"standard_error\[1\] must be positive"),
        ([1, 2, 3], [1, 1], None, "y must be a list of 3 numbers as x is"),
        ([2, 2], [1, 1], None, "x must hold at least two different numbers"),
    ],
)
def test_bad_input(x: list[float], y: list[float], error: list[float] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log_log_slope(np.asarray(x), np.asarray(y), None if error is None else np.asarray(error))

"""Orders of growth: slopes of straight lines through logarithms."""

from typing import NamedTuple

import numpy as np


class Slope(NamedTuple):
    """y = exp(intercept) x^value, with the uncertainty of the exponent."""

    value: float
    standard_error: float  # nan where nothing tells it
    intercept: float


def log_log_slope(x: np.ndarray, y: np.ndarray, standard_error: np.ndarray | None = None) -> Slope:
    """The exponent p in y = c x^p: the slope of log y against log x by least squares.

    Without standard errors all points weigh the same, and the uncertainty is told from their scatter around the line,
    curvature included. With them each point weighs as the inverse variance of log y, which is (standard_error / y)^2
    by the delta method, and the uncertainty is that of the points, however well they lie on a line.

    Args:
        x: `f64[P]` positive, not all equal.
        y: `f64[P]` positive.
        standard_error: `f64[P]` of y, positive, such as over independent seeds.

    Returns:
        The slope; its standard error is nan for two points without standard errors of their own.

    Raises:
        ValueError: a number is not positive and finite, lengths differ, or there are fewer than two different x.

    Example:
        >>> log_log_slope(np.asarray([1.0, 2.0, 4.0]), np.asarray([3.0, 12.0, 48.0])).value
        2.0
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    given = np.ones_like(y) if standard_error is None else np.asarray(standard_error, np.float64)
    for name, values in (("x", x), ("y", y), ("standard_error", given)):
        if values.shape != (x.size,):
            raise ValueError(f"{name} must be a list of {x.size} numbers as x is, got shape {values.shape}")
        bad = ~(np.isfinite(values) & (values > 0))
        if bad.any():
            index = int(np.argmax(bad))
            raise ValueError(f"{name}[{index}] must be positive and finite, got {values[index]}; leave the point out")
    if np.unique(x).size < 2:
        raise ValueError(f"x must hold at least two different numbers, got {x.tolist()}; a slope needs two")

    weight = np.ones_like(y) if standard_error is None else (y / given) ** 2
    u, v = np.log(x), np.log(y)
    centre, level = np.average(u, weights=weight), np.average(v, weights=weight)
    spread = np.sum(weight * (u - centre) ** 2)
    value = np.sum(weight * (u - centre) * (v - level)) / spread
    variance = 1.0
    if standard_error is None:
        scatter = np.sum((v - level - value * (u - centre)) ** 2)
        variance = scatter / (x.size - 2) if x.size > 2 else np.nan
    return Slope(float(value), float(np.sqrt(variance / spread)), float(level - value * centre))

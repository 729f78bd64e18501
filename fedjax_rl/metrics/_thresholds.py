"""How long it takes to reach a threshold, over seeds of which some never do."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ._intervals import Estimate
from ._returns import rounds_to_threshold


class TimeToThreshold(NamedTuple):
    """When K seeds reached a threshold, in rounds, environment steps, bits or whatever else was counted."""

    times: np.ndarray  # f64[K] inf: not within the run
    reached: int  # seeds that did
    share: Estimate  # of the seeds that did
    quantiles: dict[float, Estimate]  # by level: the time by which that share of the seeds had reached it


def time_to_threshold(x: np.ndarray, values: np.ndarray, threshold: float, *, for_good: bool = False) -> float:
    """Where a curve reaches a threshold: the x of the first value at or above it; inf if none is.

    The curve is known at its points only: between two evaluations the truth may be earlier.

    Args:
        x: f64[P] increasing: rounds, environment steps, bits.
        values: f64[P] returns.
        threshold: to be reached.
        for_good: the first x from which on no later value falls below, as far as the curve goes.

    Raises:
        ValueError: x and values differ in length.
    """
    x = np.asarray(x, np.float64)
    if x.shape != np.shape(values):
        raise ValueError(f"x and values must have one length, got {x.shape} and {np.shape(values)}")
    point = rounds_to_threshold(values, threshold, for_good=for_good)
    return np.inf if point is None else float(x[point - 1])


def threshold_statistics(
    times: np.ndarray, *, levels: Sequence[float] = (0.25, 0.5, 0.75), confidence: float = 0.95
) -> TimeToThreshold:
    """Describes times to a threshold without throwing away the seeds that never reached it.

    A mean over the seeds that succeed would favour a method that succeeds rarely and then early. Quantiles with the
    others at infinity do not: they are exact whatever the missing times are, and infinite where too few succeed.

    Args:
        times: f64[K] one time per seed; inf: never.
        levels: of the quantiles, each in (0, 1).
        confidence: of the intervals, in (0, 1).
    """
    times = np.asarray(times, np.float64)
    reached = int(np.isfinite(times).sum())
    quantiles = {level: quantile_interval(times, level, confidence=confidence) for level in levels}
    return TimeToThreshold(times, reached, share_interval(reached, len(times), confidence=confidence), quantiles)


def quantile_interval(values: np.ndarray, level: float, *, confidence: float = 0.95) -> Estimate:
    """A quantile over seeds and its distribution-free interval; values may be infinite.

    The quantile is X_(ceil(p K)), the least value that a share p of the seeds does not exceed. The number of seeds at
    or below the true quantile is B(K, p), so [X_(l), X_(u)] covers it with probability P(l <= B(K, p) < u), at least;
    l is the largest and u the smallest that leave at most (1 - confidence) / 2 on their side. Where no order statistic
    does (the median needs 6 seeds for 95 %), the interval is open: -inf or inf.

    Args:
        values: f64[K].
        level: p in (0, 1).
        confidence: in (0, 1).

    Reference: David and Nagaraja, "Order statistics", 2003, section 7.1.
    """
    _check_probability("level", level)
    _check_probability("confidence", confidence)
    ordered = np.sort(np.asarray(values, np.float64))
    count, tail = len(ordered), (1 - confidence) / 2
    below = np.cumsum(_binomial(count, level))  # P(B <= k)
    low = int(np.searchsorted(below, tail, side="right"))  # the largest l with P(B < l) = P(B <= l - 1) <= tail
    # The smallest u with P(B >= u) = 1 - P(B <= u - 1) <= tail; summed from above, where the tail is small.
    above = np.cumsum(_binomial(count, level)[::-1])[::-1]  # P(B >= k)
    high = int(np.argmax(np.append(above, 0.0) <= tail))
    value = ordered[math.ceil(level * count * (1 - 1e-12)) - 1]
    return Estimate(
        float(value),
        float(ordered[low - 1]) if low >= 1 else -np.inf,
        float(ordered[high - 1]) if high <= count else np.inf,
    )


def share_interval(successes: int, count: int, *, confidence: float = 0.95) -> Estimate:
    """A share of independent seeds and its exact interval, the shares p that neither one-sided test refuses.

    low solves P(B(K, p) >= k) = (1 - confidence) / 2, and high solves P(B(K, p) <= k) = (1 - confidence) / 2.

    Args:
        successes: k.
        count: K.
        confidence: in (0, 1).

    Reference: Clopper and Pearson, "The use of confidence or fiducial limits", 1934.
    """
    _check_probability("confidence", confidence)
    if not 0 <= successes <= count or count < 1:
        raise ValueError(f"successes must lie in [0, count] and count be at least 1, got {successes} of {count}")
    tail = (1 - confidence) / 2

    def lower(successes: int) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):  # the tail grows with p
            middle = (low + high) / 2
            if _binomial(count, middle)[successes:].sum() < tail:
                low = middle
            else:
                high = middle
        return low

    low = lower(successes) if successes else 0.0
    high = 1 - lower(count - successes) if successes < count else 1.0
    return Estimate(successes / count, low, high)


def _binomial(count: int, probability: float) -> np.ndarray:
    """f64[K + 1] the probabilities of 0 ... K successes."""
    k = np.arange(count + 1)
    log_factorial = np.array([math.lgamma(i + 1.0) for i in k])
    log_ways = log_factorial[-1] - log_factorial - log_factorial[::-1]
    return np.exp(log_ways + k * math.log(probability) + (count - k) * math.log1p(-probability))


def _check_probability(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie in (0, 1), got {value!r}")

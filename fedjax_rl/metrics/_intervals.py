"""Confidence intervals over independent runs."""

import numpy as np


def bootstrap_interval(
    values: np.ndarray, *, confidence: float = 0.95, num_resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval of the mean over the first axis.

    Args:
        values: f64[K, ...] one row per seed.
        confidence: in (0, 1).
        num_resamples: bootstrap samples.
        seed: of the resampling.

    Returns:
        (low, high) of shape [...]; both equal the mean for a single row.

    Reference: Efron, "Bootstrap methods: another look at the jackknife", 1979.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence!r}")
    values = np.asarray(values, np.float64)
    rows = np.random.default_rng(seed).integers(0, len(values), (num_resamples, len(values)))
    counts = np.stack([np.bincount(r, minlength=len(values)) for r in rows]) / len(values)
    means = np.tensordot(counts, values, 1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high

"""Aggregation rules as loops over coordinates, in the notation of Yin et al. (2018)."""

import numpy as np


def mean(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """sum w x / sum w."""
    total = np.zeros(x.shape[1:])
    for xi, wi in zip(x, w, strict=True):
        total += wi * xi
    return total / w.sum()


def median(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Definition 1, over the messages with positive weight."""
    x = x[w > 0]
    out = np.empty(x.shape[1:])
    for k in np.ndindex(*x.shape[1:]):
        s = sorted(float(xi[k]) for xi in x)
        m = len(s)
        out[k] = s[m // 2] if m % 2 else (s[m // 2 - 1] + s[m // 2]) / 2
    return out


def trimmed_mean(x: np.ndarray, w: np.ndarray, beta: float) -> np.ndarray:
    """Definition 2: without the floor(beta m) smallest and largest of each coordinate."""
    x = x[w > 0]
    m = len(x)
    b = int(np.floor(beta * m + 1e-9))
    out = np.empty(x.shape[1:])
    for k in np.ndindex(*x.shape[1:]):
        s = sorted(float(xi[k]) for xi in x)
        out[k] = np.mean(s[b : m - b])
    return out

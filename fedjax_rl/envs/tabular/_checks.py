"""Whether arrays are a finite MDP."""

from typing import Any

import numpy as np

from fedjax_rl.core import is_concrete


TOLERANCE = 1e-5  # of a sum of probabilities; files in single precision miss one by less


def check_world(what: str, params: Any) -> None:
    """Raises unless concrete arrays are one finite MDP.

    Args:
        what: the argument's name as the caller wrote it.
        params: kernel f[..., S, A, S], reward f[..., S, A], initial f[S] or f[N, S].

    Raises:
        ValueError: a shape does not fit, a number is not finite, a probability is negative, a law does not sum to one;
            the text names the array and the first bad index.
    """
    if not is_concrete(params):
        return
    kernel, reward, initial = (np.asarray(x) for x in (params.kernel, params.reward, params.initial))
    if kernel.ndim < 3 or kernel.shape[-1] != kernel.shape[-3]:
        raise ValueError(f"{what}: kernel must have shape [..., S, A, S], got {list(kernel.shape)}")
    if reward.shape != kernel.shape[:-1]:
        raise ValueError(
            f"{what}: reward must have shape {list(kernel.shape[:-1])}, that of the kernel but for the last axis, "
            f"got {list(reward.shape)}; give the mean over next states where it depends on them"
        )
    if initial.shape[-1:] != kernel.shape[-1:]:
        raise ValueError(f"{what}: initial must have a last axis of S = {kernel.shape[-1]}, got {list(initial.shape)}")
    for name, array in (("kernel", kernel), ("reward", reward), ("initial", initial)):
        if array.dtype.kind not in "fiu":
            raise ValueError(f"{what}: {name} must hold real numbers, got {array.dtype}")
        _check_everywhere(what, name, array, np.isfinite(array), "must be finite")
    for name, array in (("kernel", kernel), ("initial", initial)):
        _check_everywhere(what, name, array, array >= 0, "must be a probability")
        total = array.sum(-1, dtype=np.float64)
        _check_everywhere(what, name, total, abs(total - 1) <= TOLERANCE, "must sum to one", "sums to ")


def _check_everywhere(what: str, name: str, value: np.ndarray, good: np.ndarray, must: str, verb: str = "is ") -> None:
    """Raises at the first index where it is not good."""
    if not np.all(good):
        index = np.unravel_index(int(np.argmin(good)), np.shape(good))
        place = f"[{', '.join(map(str, index))}]" if index else ""
        number = float(np.asarray(value)[index])
        raise ValueError(f"{what}: {name}{place} {must}, but {verb}{number:.6g} ({np.sum(~np.asarray(good))} such)")

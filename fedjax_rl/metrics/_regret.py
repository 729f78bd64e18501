"""Regret: what is lost by not having played the best policy from the beginning."""

import numpy as np


def cumulative_regret(values: np.ndarray, optimum: np.ndarray | float) -> np.ndarray:
    """R(t) = sum_{i <= t} (V* - V^{pi_i}), on one MDP, such as the common one of a family.

    The value of an episode is the exact one of the policy that was played, not the return it happened to have, whose
    noise would hide the logarithm. What is recorded after a round belongs to the policy of the next episode, so the
    first policy's value comes first and the last one recorded was never played.

    Args:
        values: `f64[..., T]` V^{pi_t} of the episodes in turn; leading axes for seeds or agents.
        optimum: `f64[...]` V* of the same MDP and law of the first state.

    Returns:
        `f64[..., T]`; per agent, as all agents play the same policy.

    Raises:
        ValueError: shapes disagree, a number is not finite, or a value exceeds the optimum by more than rounding.

    Example:
        >>> cumulative_regret(np.asarray([1.0, 1.5, 2.0]), 2.0).tolist()
        [1.0, 1.5, 1.5]
    """
    values, optimum = _matched(values, optimum)
    loss = optimum[..., None] - values
    slack = 1e-6 * (1 + np.abs(optimum[..., None]))
    if np.any(loss < -slack):
        worst = np.unravel_index(np.argmin(loss), loss.shape)
        raise ValueError(
            f"optimum must be at least every value, got {values[worst]} at {tuple(int(i) for i in worst)}, which is "
            f"{-loss[worst]:.3g} more; take it on the same MDP and with the same law of the first state"
        )
    return np.cumsum(loss, -1)


def social_regret(values: np.ndarray, comparator: np.ndarray) -> np.ndarray:
    """(1 / M) sum_c sum_{i <= t} (V^{c, pi*} - V^{c, pi_i}), each agent's episodes on its own MDP.

    The comparator is one policy for all, the best one on average, so that single agents may do better than with it and
    their terms may be negative. With every agent's own optimum in its place, the personalisation gap is part of it.

    Args:
        values: `f64[M, ..., T]` V^{c, pi_t}.
        comparator: `f64[M, ...]` V^{c, pi*}.

    Returns:
        `f64[..., T]`.

    Raises:
        ValueError: shapes disagree, there is no axis of agents, or a number is not finite.

    Reference: Labbi et al., "Federated UCBVI", AISTATS 2025.
    """
    if np.ndim(values) < 2:
        raise ValueError(f"values must have the axes [M, ..., T], got shape {np.shape(values)}; write values[None]")
    values, comparator = _matched(values, comparator)
    return np.mean(np.cumsum(comparator[..., None] - values, -1), 0)


def _matched(values: np.ndarray, optimum: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64, the optimum in the shape of the values' leading axes."""
    values, optimum = np.asarray(values, np.float64), np.asarray(optimum, np.float64)
    for name, array in (("values", values), ("optimum", optimum)):
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}; leave the run out")
    lead = values.shape[:-1]
    if values.ndim == 0 or optimum.shape not in ((), lead):
        raise ValueError(
            f"optimum must have the shape {lead} of the values' leading axes, or be one number, got {optimum.shape}"
        )
    return values, np.broadcast_to(optimum, lead)

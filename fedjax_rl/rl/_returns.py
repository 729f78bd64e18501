"""Returns and advantages of a trajectory, time-major `[T, ...]`.

All functions share their conventions. A step that terminated is followed by nothing, so its successor is worth 0; a
step that was truncated is followed by `final_value`, what the critic says about the observation the step led to.
Neither looks beyond the end. The last step of a trajectory whose episode goes on is followed by `last_value`.

    V'_t = 0 (terminated),  final_value_t (truncated),  V_{t+1} (t < T - 1),  last_value (t = T - 1)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Advantages(NamedTuple):
    """What the actor and the critic learn from."""

    advantage: jax.Array  # f32[T, ...]
    target: jax.Array  # f32[T, ...] = advantage + value, for the critic


def discounted_returns(
    reward: jax.Array, terminated: jax.Array, truncated: jax.Array, final_value: jax.Array, last_value: jax.Array,
    discount: Any,
) -> jax.Array:  # fmt: skip
    """G_t = r_t + gamma G_{t+1}, where an end puts 0 or final_value_t in the place of G_{t+1}; G_T = last_value.

    Args:
        reward: `f32[T, ...]`.
        terminated: `bool[T, ...]`.
        truncated: `bool[T, ...]`.
        final_value: `f32[T, ...]` V of the observation the step led to, read only where truncated and not terminated.
        last_value: `f32[...]` V of the observation after the last step, read only where that step did not end.
        discount: gamma in [0, 1].

    Returns:
        `f32[T, ...]`.

    Reference: Sutton and Barto, "Reinforcement learning", 2nd edition, equation 3.9.
    """
    ended, after_end = _ends(terminated, truncated, final_value)
    return linear_recurrence(reward + discount * after_end, jnp.where(ended, 0, discount), last_value)


def generalized_advantages(
    reward: jax.Array, value: jax.Array, terminated: jax.Array, truncated: jax.Array, final_value: jax.Array,
    last_value: jax.Array, discount: Any, gae_lambda: Any = 0.95,
) -> Advantages:  # fmt: skip
    """A_t = delta_t + gamma lambda A_{t+1} within an episode, delta_t = r_t + gamma V'_t - V_t.

    lambda = 0 is the one-step advantage, lambda = 1 is `discounted_returns` - V.

    Args:
        reward: `f32[T, ...]`.
        value: `f32[T, ...]` V(s_t).
        terminated: `bool[T, ...]`.
        truncated: `bool[T, ...]`.
        final_value: `f32[T, ...]` V of the observation the step led to, read only where truncated and not terminated.
        last_value: `f32[...]` V of the observation after the last step, read only where that step did not end.
        discount: gamma in [0, 1].
        gae_lambda: lambda in [0, 1].

    Returns:
        A and the lambda-return A + V, `f32[T, ...]`.

    Reference: Schulman et al., "High-dimensional continuous control using generalized advantage estimation", 2016,
        equation 16; Sutton and Barto, 2nd edition, section 12.1 (the lambda-return).
    """
    ended = jnp.logical_or(terminated, truncated)
    delta = reward + discount * next_values(value, terminated, truncated, final_value, last_value) - value
    advantage = linear_recurrence(delta, jnp.where(ended, 0, discount * gae_lambda), jnp.zeros_like(delta[0]))
    return Advantages(advantage, advantage + value)


def n_step_returns(
    reward: jax.Array, value: jax.Array, terminated: jax.Array, truncated: jax.Array, final_value: jax.Array,
    last_value: jax.Array, discount: Any, num_steps: int,
) -> jax.Array:  # fmt: skip
    """G_t = r_t + ... + gamma^{n-1} r_{t+n-1} + gamma^n V_{t+n}, shorter where the episode or the trajectory ends.

    Computed as n rounds of G^(k)_t = r_t + gamma G^(k-1)_{t+1} from G^(0) = V.

    Args:
        reward: `f32[T, ...]`.
        value: `f32[T, ...]` V(s_t).
        terminated: `bool[T, ...]`.
        truncated: `bool[T, ...]`.
        final_value: `f32[T, ...]` V of the observation the step led to, read only where truncated and not terminated.
        last_value: `f32[...]` V of the observation after the last step, read only where that step did not end.
        discount: gamma in [0, 1].
        num_steps: n >= 1, structure; 1 is the one-step target, T or more is `discounted_returns`.

    Returns:
        `f32[T, ...]`.

    Raises:
        ValueError: num_steps is less than 1.

    Reference: Sutton and Barto, "Reinforcement learning", 2nd edition, equation 7.1.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be an integer >= 1, got {num_steps!r}")

    def one_more(returns: jax.Array, _: None) -> tuple[jax.Array, None]:
        return reward + discount * next_values(returns, terminated, truncated, final_value, last_value), None

    start = value.astype(jnp.result_type(value, reward, final_value, last_value, discount))
    return lax.scan(one_more, start, length=min(num_steps, reward.shape[0]))[0]


def next_values(
    value: jax.Array, terminated: jax.Array, truncated: jax.Array, final_value: jax.Array, last_value: jax.Array
) -> jax.Array:
    """V'_t, what follows each step, `f32[T, ...]` (see the top of this file)."""
    ended, after_end = _ends(terminated, truncated, final_value)
    return jnp.where(ended, after_end, jnp.concatenate([value[1:], jnp.expand_dims(last_value, 0)]))


def linear_recurrence(term: jax.Array, factor: jax.Array, last: jax.Array) -> jax.Array:
    """x_t = term_t + factor_t x_{t+1} backwards in time, from x_T = last.

    Args:
        term: `f32[T, ...]`.
        factor: `f32[T, ...]`.
        last: `f32[...]`.

    Returns:
        `f32[T, ...]`.
    """

    def step(x: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        term, factor = inputs
        # A factor of 0 ends the recursion even where what follows is infinite or NaN.
        x = term + jnp.where(factor == 0, 0, factor * x)
        return x, x

    dtype = jnp.result_type(term, factor, last)
    return lax.scan(step, last.astype(dtype), (term.astype(dtype), factor.astype(dtype)), reverse=True)[1]


def _ends(terminated: jax.Array, truncated: jax.Array, final_value: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether a step ended its episode, and what is worth having after that: final_value where it was only cut."""
    cut = jnp.logical_and(truncated, jnp.logical_not(terminated))
    return jnp.logical_or(terminated, truncated), jnp.where(cut, final_value, jnp.zeros((), final_value.dtype))

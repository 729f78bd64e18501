"""Learning from what another policy did: importance ratios and V-trace."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ._returns import linear_recurrence, next_values


class VTrace(NamedTuple):
    """What the critic and the actor learn from; nothing flows back through either."""

    target: jax.Array  # f32[T, ...] v_t, for the critic
    advantage: jax.Array  # f32[T, ...] min(clip_gradient, rho_t) (r_t + gamma v'_t - V_t), for the policy gradient


def importance_ratios(log_prob: jax.Array, behaviour_log_prob: jax.Array, clip: Any = None) -> jax.Array:
    """rho = pi(a|s) / mu(a|s), at most `clip` where one is given.

    Args:
        log_prob: `f32[...]` of the action under the target policy pi.
        behaviour_log_prob: `f32[...]` under the policy mu that acted.
        clip: the largest ratio; None: no limit.

    Returns:
        `f32[...]`.

    Reference: Sutton and Barto, "Reinforcement learning", 2nd edition, equation 5.3.
    """
    ratio = jnp.exp(log_prob - behaviour_log_prob)
    return ratio if clip is None else jnp.minimum(ratio, clip)


def vtrace(
    reward: jax.Array, value: jax.Array, terminated: jax.Array, truncated: jax.Array, final_value: jax.Array,
    last_value: jax.Array, ratio: jax.Array, discount: Any, trace_lambda: Any = 1.0, *, clip_target: Any = 1.0,
    clip_trace: Any = 1.0, clip_gradient: Any = 1.0,
) -> VTrace:  # fmt: skip
    """V-trace targets and advantages from an off-policy trajectory.

        v_t = V_t + d_t + gamma c_t (v_{t+1} - V_{t+1}),   d_t = min(clip_target, rho_t) (r_t + gamma V'_t - V_t),
        c_t = lambda min(clip_trace, rho_t)

    within an episode; V'_t is what follows a step (0 after a termination, final_value after a truncation). With rho = 1
    and lambda = 1 the target is `discounted_returns`.

    Args:
        reward: `f32[T, ...]`.
        value: `f32[T, ...]` V(s_t).
        terminated: `bool[T, ...]`.
        truncated: `bool[T, ...]`.
        final_value: `f32[T, ...]` V of the observation the step led to, read only where truncated and not terminated.
        last_value: `f32[...]` V of the observation after the last step, read only where that step did not end.
        ratio: `f32[T, ...]` rho_t, from `importance_ratios` without a clip.
        discount: gamma in [0, 1].
        trace_lambda: lambda in [0, 1].
        clip_target: the limit rho-bar; it decides which policy the values belong to.
        clip_trace: the limit c-bar; it decides how fast, not where to.
        clip_gradient: the limit of the ratio in the advantage.

    Returns:
        targets and advantages, `f32[T, ...]`.

    Reference: Espeholt et al., "IMPALA: scalable distributed deep-RL with importance weighted actor-learner
        architectures", 2018, equation 1 and section 4.2.
    """
    ended = jnp.logical_or(terminated, truncated)
    following = next_values(value, terminated, truncated, final_value, last_value)
    delta = jnp.minimum(clip_target, ratio) * (reward + discount * following - value)
    factor = jnp.where(ended, 0, discount * trace_lambda * jnp.minimum(clip_trace, ratio))
    target = value + linear_recurrence(delta, factor, jnp.zeros_like(delta[0]))
    following_target = next_values(target, terminated, truncated, final_value, last_value)
    advantage = jnp.minimum(clip_gradient, ratio) * (reward + discount * following_target - value)
    return VTrace(jax.lax.stop_gradient(target), jax.lax.stop_gradient(advantage))

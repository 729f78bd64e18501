"""Episodic MDPs of a fixed horizon, whose kernels and rewards may depend on time."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ._lifted import lifted


class EpisodicOptimum(NamedTuple):
    """The optimal values of an episodic MDP and a deterministic policy that has them."""

    values: jax.Array  # f[..., H + 1, S] V*_h; the last row, after the end, is zero
    action_values: jax.Array  # f[..., H, S, A] Q*_h
    policy: jax.Array  # f[..., H, S, A] one-hot rows


def backward_induction(kernel: jax.Array, reward: jax.Array) -> EpisodicOptimum:
    """V*_h(s) = max_a r_h(s, a) + sum_s' P_h(s' | s, a) V*_{h+1}(s'), V*_H = 0.

    Args:
        kernel: `f[..., H, S, A, S]` P_h(s' | s, a).
        reward: `f[..., H, S, A]`.

    Returns:
        The optimum.

    Raises:
        ValueError: shapes disagree or rows do not sum to one.

    Reference: Puterman, "Markov decision processes", 1994, section 4.5.
    """
    values, action_values = _optimal(kernel, reward)
    best = jnp.argmax(action_values, -1)
    policy = jax.nn.one_hot(best, action_values.shape[-1], dtype=action_values.dtype)
    return EpisodicOptimum(values, action_values, policy)


@lifted("(h,s,a,s),(h,s,a),(h,s,a)->(k,s)")
def episodic_values(kernel: jax.Array, reward: jax.Array, policy: jax.Array) -> jax.Array:
    """V^pi_h(s) = sum_a pi_h(a | s) (r_h(s, a) + sum_s' P_h(s' | s, a) V^pi_{h+1}(s')), V^pi_H = 0.

    Args:
        kernel: `f[..., H, S, A, S]` P_h(s' | s, a).
        reward: `f[..., H, S, A]`.
        policy: `f[..., H, S, A]` pi_h(a | s).

    Returns:
        `f[..., H + 1, S]`; the last row, after the end, is zero. The regret of an episode that starts in s is
        `backward_induction(...).values[..., 0, s]` less the first row here.
    """

    def back(after: jax.Array, step: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        kernel, reward, policy = step
        values = jnp.sum(policy * (reward + jnp.einsum("sat,t->sa", kernel, after)), -1)
        return values, values

    end = jnp.zeros(reward.shape[1], reward.dtype)  # not from a row of the rewards: H may be 0
    _, values = lax.scan(back, end, (kernel, reward, policy), reverse=True)
    return jnp.concatenate([values, end[None]])


@lifted("(h,s,a,s),(h,s,a),(s)->(h,s)")
def episodic_occupancy(kernel: jax.Array, policy: jax.Array, initial: jax.Array) -> jax.Array:
    """d_h(s) = P(s_h = s), so that J = sum_h sum_s d_h(s) r^pi_h(s).

    Args:
        kernel: `f[..., H, S, A, S]` P_h(s' | s, a).
        policy: `f[..., H, S, A]` pi_h(a | s).
        initial: `f[..., S]` law of s_0.

    Returns:
        `f[..., H, S]`; each row sums to one.
    """

    def forth(law: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        kernel, policy = step
        return jnp.einsum("s,sa,sat->t", law, policy, kernel), law

    _, laws = lax.scan(forth, initial, (kernel, policy))
    return laws


@lifted("(h,s,a,s),(h,s,a)->(k,s),(h,s,a)")
def _optimal(kernel: jax.Array, reward: jax.Array) -> tuple[jax.Array, jax.Array]:
    def back(after: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        kernel, reward = step
        worth = reward + jnp.einsum("sat,t->sa", kernel, after)
        values = jnp.max(worth, -1)
        return values, (values, worth)

    end = jnp.zeros(reward.shape[1], reward.dtype)  # not from a row of the rewards: H may be 0
    _, (values, worth) = lax.scan(back, end, (kernel, reward), reverse=True)
    return jnp.concatenate([values, end[None]]), worth

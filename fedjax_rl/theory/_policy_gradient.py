"""Exact gradients of softmax policies, for one agent and for the average of all."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from ._evaluation import _values, discounted_occupancy, expected_return
from ._lifted import lifted


@lifted("(s,a)->(s,a)")
def softmax_policy(logits: jax.Array) -> jax.Array:
    """pi(a | s) = exp theta(s, a) / sum_a' exp theta(s, a').

    Args:
        logits: `f[..., S, A]` theta.

    Returns:
        `f[..., S, A]`.
    """
    return jax.nn.softmax(logits, -1)


@lifted("(s,a),(s,a,s),(s,a),(s),(),()->(s,a)")
def softmax_gradient(
    logits: jax.Array, kernel: jax.Array, reward: jax.Array, initial: jax.Array, discount: Any,
    entropy_weight: Any = 0.0,
) -> jax.Array:  # fmt: skip
    """dJ / dtheta(s, a) = d(s) pi(a | s) (Q(s, a) - lambda log pi(a | s) - V(s)) / (1 - gamma), without sampling.

    Args:
        logits: `f[..., S, A]` theta.
        kernel: `f[..., S, A, S]` P(s' | s, a).
        reward: `f[..., S, A]`.
        initial: `f[..., S]` law of s_0.
        discount: gamma in [0, 1).
        entropy_weight: lambda; values are regularised as in `state_values`.

    Returns:
        `f[..., S, A]`; each row sums to zero.

    Reference: Agarwal et al., "On the theory of policy gradient methods", 2021, equation 10; with the entropy Mei et
        al., "On the global convergence rates of softmax policy gradient methods", 2020, lemma 10.
    """
    policy = jax.nn.softmax(logits, -1)
    values = _values(kernel, reward, policy, discount, entropy_weight)
    worth = reward + discount * jnp.einsum("sat,t->sa", kernel, values)
    occupancy = discounted_occupancy(kernel, policy, initial, discount) / (1 - discount)
    # pi log pi is zero where pi is: an action that is never played has no gradient.
    return occupancy[:, None] * (policy * (worth - values[:, None]) - entropy_weight * xlogy(policy, policy))


@lifted("(n,s,a,s),(n,s,a),(s,a),(n,s),(),()->()")
def averaged_return(
    kernel: jax.Array, reward: jax.Array, policy: jax.Array, initial: jax.Array, discount: Any,
    entropy_weight: Any = 0.0,
) -> jax.Array:  # fmt: skip
    """J(pi) = (1 / N) sum_c J_c(pi): what one shared policy is worth to the agents on average.

    Args:
        kernel: `f[..., N, S, A, S]` P_c(s' | s, a).
        reward: `f[..., N, S, A]`, or `f[S, A]` for a common reward.
        policy: `f[..., S, A]` pi(a | s).
        initial: `f[..., N, S]` law of s_0, or `f[S]` for a common one.
        discount: gamma in [0, 1).
        entropy_weight: lambda, as in `state_values`.

    Returns:
        `f[...]`.

    Reference: Labbi et al., "On global convergence rates for federated softmax policy gradient under heterogeneous
        environments", 2026.
    """
    return jnp.mean(expected_return(kernel, reward, policy, initial, discount, entropy_weight))


@lifted("(s,a),(n,s,a,s),(n,s,a),(n,s),(),()->(s,a)")
def averaged_softmax_gradient(
    logits: jax.Array, kernel: jax.Array, reward: jax.Array, initial: jax.Array, discount: Any,
    entropy_weight: Any = 0.0,
) -> jax.Array:  # fmt: skip
    """The gradient of `averaged_return` in the logits of a shared softmax policy: the mean of the agents' gradients.

    Args:
        logits: `f[..., S, A]` theta.
        kernel: `f[..., N, S, A, S]` P_c(s' | s, a).
        reward: `f[..., N, S, A]`, or `f[S, A]` for a common reward.
        initial: `f[..., N, S]` law of s_0, or `f[S]` for a common one.
        discount: gamma in [0, 1).
        entropy_weight: lambda, as in `state_values`.

    Returns:
        `f[..., S, A]`; each row sums to zero.
    """
    return jnp.mean(softmax_gradient(logits, kernel, reward, initial, discount, entropy_weight), 0)

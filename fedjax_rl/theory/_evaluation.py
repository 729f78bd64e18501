"""What a stationary policy is worth in a discounted MDP."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

from fedjax_rl.core import linalg

from ._lifted import lifted


@lifted("(s,a,s),(s,a)->(s,s)")
def policy_chain(kernel: jax.Array, policy: jax.Array) -> jax.Array:
    """P^pi(s' | s) = sum_a pi(a | s) P(s' | s, a).

    Args:
        kernel: `f[..., S, A, S]` P(s' | s, a).
        policy: `f[..., S, A]` pi(a | s).

    Returns:
        `f[..., S, S]`.
    """
    return jnp.einsum("sat,sa->st", kernel, policy)


@lifted("(s,a),(s,a)->(s)")
def policy_reward(reward: jax.Array, policy: jax.Array) -> jax.Array:
    """r^pi(s) = sum_a pi(a | s) r(s, a).

    Args:
        reward: `f[..., S, A]`.
        policy: `f[..., S, A]` pi(a | s).

    Returns:
        `f[..., S]`.
    """
    return jnp.sum(reward * policy, -1)


@lifted("(s,a,s),(s,a),(s,a),(),()->(s)")
def state_values(
    kernel: jax.Array, reward: jax.Array, policy: jax.Array, discount: Any, entropy_weight: Any = 0.0
) -> jax.Array:
    """V^pi = (I - gamma P^pi)^-1 (r^pi + lambda H(pi)), where H(pi)(s) = -sum_a pi(a | s) log pi(a | s).

    Args:
        kernel: `f[..., S, A, S]` P(s' | s, a).
        reward: `f[..., S, A]`.
        policy: `f[..., S, A]` pi(a | s).
        discount: gamma in [0, 1).
        entropy_weight: lambda; 0 is the value without regularisation.

    Returns:
        `f[..., S]`.

    Raises:
        ValueError: shapes disagree, rows do not sum to one, or the discount lies outside [0, 1).

    Reference: Puterman, "Markov decision processes", 1994, theorem 6.1.1; the entropy as in Mei et al., "On the global
        convergence rates of softmax policy gradient methods", 2020, section 4.
    """
    return _values(kernel, reward, policy, discount, entropy_weight)


@lifted("(s,a,s),(s,a),(s,a),(),()->(s,a)")
def action_values(
    kernel: jax.Array, reward: jax.Array, policy: jax.Array, discount: Any, entropy_weight: Any = 0.0
) -> jax.Array:
    """Q^pi(s, a) = r(s, a) + gamma sum_s' P(s' | s, a) V^pi(s'), so that V = sum_a pi (Q - lambda log pi).

    Args:
        kernel: `f[..., S, A, S]` P(s' | s, a).
        reward: `f[..., S, A]`.
        policy: `f[..., S, A]` pi(a | s).
        discount: gamma in [0, 1).
        entropy_weight: lambda; the entropy of the action in s itself is not part of Q.

    Returns:
        `f[..., S, A]`.
    """
    return reward + discount * jnp.einsum(
        "sat,t->sa", kernel, _values(kernel, reward, policy, discount, entropy_weight)
    )


@lifted("(s,a,s),(s,a),(s),()->(s)")
def discounted_occupancy(kernel: jax.Array, policy: jax.Array, initial: jax.Array, discount: Any) -> jax.Array:
    """d(s) = (1 - gamma) sum_t gamma^t P(s_t = s), which sums to one.

    Args:
        kernel: `f[..., S, A, S]` P(s' | s, a).
        policy: `f[..., S, A]` pi(a | s).
        initial: `f[..., S]` law of s_0.
        discount: gamma in [0, 1).

    Returns:
        `f[..., S]`; times pi(a | s) it is the occupancy of (s, a).

    Reference: Puterman, "Markov decision processes", 1994, section 6.9.
    """
    return (1 - discount) * linalg.solve(_resolvent(kernel, policy, discount).T, initial)


@lifted("(s,a,s),(s,a),(s,a),(s),(),()->()")
def expected_return(
    kernel: jax.Array,
    reward: jax.Array,
    policy: jax.Array,
    initial: jax.Array,
    discount: Any,
    entropy_weight: Any = 0.0,
) -> jax.Array:
    """J = sum_s rho(s) V^pi(s).

    Args:
        kernel: `f[..., S, A, S]` P(s' | s, a).
        reward: `f[..., S, A]`.
        policy: `f[..., S, A]` pi(a | s).
        initial: `f[..., S]` rho, the law of s_0. Sampled returns follow the environment's own reset law; a result
            under another law, such as the uniform one, is another number.
        discount: gamma in [0, 1).
        entropy_weight: lambda, as in `state_values`.

    Returns:
        `f[...]`.
    """
    return initial @ _values(kernel, reward, policy, discount, entropy_weight)


def _resolvent(kernel: jax.Array, policy: jax.Array, discount: Any) -> jax.Array:
    """I - gamma P^pi."""
    chain = jnp.einsum("sat,sa->st", kernel, policy)
    return jnp.eye(len(chain), dtype=chain.dtype) - discount * chain


def _values(kernel: jax.Array, reward: jax.Array, policy: jax.Array, discount: Any, entropy_weight: Any) -> jax.Array:
    gain = jnp.sum(policy * reward + entropy_weight * entr(policy), -1)
    return linalg.solve(_resolvent(kernel, policy, discount), gain)

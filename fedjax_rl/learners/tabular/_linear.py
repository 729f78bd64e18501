"""The linear system of TD learning on one finite MDP."""

from typing import Any

import jax
import jax.numpy as jnp

from ...envs import TabularParams


def policy_chain(physics: TabularParams, policy: jax.Array) -> jax.Array:
    """P^pi f[S, S]: the chain of states under a policy f[S, A]."""
    return jnp.einsum("sat,sa->st", jnp.asarray(physics.kernel), policy)


def stationary_law(chain: jax.Array) -> jax.Array:
    """The only mu f[S] with mu P = mu, by (I - P^T + 1 1^T) mu = 1; NaN where the chain has several.

    Nothing can be raised inside a trace. NaN makes every message of the agent non-finite, which is reported.
    """
    size = len(chain)
    balance = jnp.eye(size, dtype=chain.dtype) - chain.T + jnp.ones_like(chain)
    factors = jax.scipy.linalg.lu_factor(balance)
    law = jnp.maximum(jax.scipy.linalg.lu_solve(factors, jnp.ones(size, chain.dtype)), 0)  # transient: 0 +- rounding
    pivots = jnp.abs(jnp.diagonal(factors[0]))
    unique = jnp.min(pivots) > size * jnp.finfo(chain.dtype).eps * jnp.max(pivots)
    return jnp.where(unique, law / jnp.sum(law), jnp.nan)


def td_system(
    features: jax.Array, physics: TabularParams, policy: jax.Array, law: jax.Array, discount: Any, trace: Any
) -> tuple[jax.Array, jax.Array]:
    """(A f[d, d], b f[d]), the mean of TD(lambda)'s direction being b - A theta.

        A = Z^T (I - gamma P^pi) Phi,  b = Z^T r^pi,  Z^T = Phi^T D (I - gamma lambda P^pi)^-1,  D = diag(mu)

    Reference: Tsitsiklis and Van Roy, "An analysis of temporal-difference learning with function approximation", 1997,
        section III.
    """
    chain = policy_chain(physics, policy)
    identity = jnp.eye(len(chain), dtype=chain.dtype)
    weighted = (law[:, None] * features).astype(chain.dtype)
    eligibility = jnp.linalg.solve((identity - discount * trace * chain).T, weighted)  # Z f[S, d]
    expected_reward = jnp.sum(policy * jnp.asarray(physics.reward), -1)
    return eligibility.T @ (features - discount * chain @ features), eligibility.T @ expected_reward

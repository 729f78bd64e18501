"""Projected fixed points of temporal-difference learning with linear values, of one agent and of a federation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.core import linalg

from ._chains import stationary_distribution
from ._evaluation import policy_chain
from ._federation import averaged_mdp
from ._lifted import lifted
from ._limits import solution


class LinearSystem(NamedTuple):
    """A theta = b, whose solution is the fixed point of a linear stochastic approximation."""

    matrix: jax.Array  # f[..., d, d] A
    vector: jax.Array  # f[..., d] b


class TDFixedPoints(NamedTuple):
    """Where on-policy TD ends for each agent alone, for all together, and in their averaged MDP."""

    local: jax.Array  # f[N, d] theta_c* = A_c^-1 b_c; nan for an agent that has no single one
    federated: jax.Array  # f[d] theta* = Abar^-1 bbar
    averaged: jax.Array  # f[d] of the averaged MDP under its own stationary law; nan likewise


def td_system(
    features: jax.Array, kernel: jax.Array, reward: jax.Array, policy: jax.Array, law: jax.Array, discount: Any,
    trace_decay: Any = 0.0,
) -> LinearSystem:  # fmt: skip
    """A = E[z (phi(s) - gamma phi(s'))^T] and b = E[z r] of TD(lambda), z being the eligibility trace.

        A = Phi^T D (I - gamma lambda P^pi)^-1 (I - gamma P^pi) Phi
        b = Phi^T D (I - gamma lambda P^pi)^-1 r^pi,          D = diag(mu)

    For lambda = 0, z = phi(s), and mu may be any law that states are drawn from; for lambda > 0 the formula is that of
    a trace along a stationary trajectory, and mu must be the stationary law.

    Args:
        features: `f[..., S, d]` phi(s).
        kernel: `f[..., S, A, S]` P(s' | s, a). A chain P^pi is an MDP with one action: `chain[..., None, :]`.
        reward: `f[..., S, A]`.
        policy: `f[..., S, A]` pi(a | s).
        law: `f[..., S]` mu.
        discount: gamma in [0, 1).
        trace_decay: lambda in [0, 1).

    Returns:
        The system, per agent if the arguments are.

    Raises:
        ValueError: shapes disagree, or rows do not sum to one.

    Reference: Tsitsiklis and Van Roy, "An analysis of temporal-difference learning with function approximation", 1997,
        section III; Mangold et al., "SCAFFLSA: taming heterogeneity in federated linear stochastic approximation and TD
        learning", 2024 (lambda = 0).
    """
    return LinearSystem(*_td_system(features, kernel, reward, policy, law, discount, trace_decay))


@lifted(
    "(d,d),(d)->(d)",
    precise=True,
    exists=("matrix", "must be regular, got a singular one; drop features that others span, and states never visited"),
)
def fixed_point(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """theta_c* = A_c^-1 b_c.

    Args:
        matrix: `f[..., d, d]` A_c.
        vector: `f[..., d]` b_c.

    Returns:
        `f[..., d]`.

    Raises:
        ValueError: not in float64, or A_c is singular; within a trace the result is NaN then.
    """
    return solution(matrix, vector)


@lifted(
    "(n,d,d),(n,d)->(d)",
    precise=True,
    exists=("matrix", "must have a regular mean over the agents, got a singular one; drop features that others span"),
)
def federated_fixed_point(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """theta* = (mean_c A_c)^-1 mean_c b_c: where the agents' mean update vanishes.

    Args:
        matrix: `f[..., N, d, d]` A_c.
        vector: `f[..., N, d]` b_c.

    Returns:
        `f[..., d]`.

    Raises:
        ValueError: not in float64, or the mean of A_c is singular; within a trace the result is NaN then.

    Reference: Mangold et al., "SCAFFLSA: taming heterogeneity in federated linear stochastic approximation and TD
        learning", 2024.
    """
    return solution(jnp.mean(matrix, 0), jnp.mean(vector, 0))


def td_fixed_points(
    features: jax.Array, kernel: jax.Array, reward: jax.Array, policy: jax.Array, discount: Any,
    trace_decay: Any = 0.0,
) -> TDFixedPoints:  # fmt: skip
    """The three fixed points of on-policy TD(lambda), each agent's states following its own stationary law mu_c.

    The federated one weighs agent c's equation for state s by mu_c(s), so it is not that of the averaged MDP: the two
    differ by O(eps_P^2), and by nothing where all agents draw states from one law.

    Args:
        features: `f[S, d]` phi(s), common to all agents.
        kernel: `f[N, S, A, S]` P_c(s' | s, a).
        reward: `f[N, S, A]`, or `f[S, A]` for a common reward.
        policy: `f[S, A]` pi(a | s), common to all agents.
        discount: gamma in [0, 1).
        trace_decay: lambda in [0, 1).

    Returns:
        The fixed points.

    Raises:
        ValueError: not in float64, an agent's chain has several closed classes, or features depend on each other.
    """
    laws = stationary_distribution(policy_chain(kernel, policy))
    systems = td_system(features, kernel, reward, policy, laws, discount, trace_decay)
    mean = averaged_mdp(kernel, reward)
    mean_law = stationary_distribution(policy_chain(mean.kernel, policy))
    averaged = td_system(features, mean.kernel, mean.reward, policy, mean_law, discount, trace_decay)
    return TDFixedPoints(_fixed_point(*systems), federated_fixed_point(*systems), _fixed_point(*averaged))


@lifted("(n,d,d)->()")
def system_heterogeneity(matrix: jax.Array) -> jax.Array:
    """zeta = max_c |A_c - Abar|_2, the spectral norm.

    Args:
        matrix: `f[..., N, d, d]` A_c.

    Returns:
        `f[...]`.

    Reference: Labbi, Mangold, Moulines, "Best of both worlds in federated linear stochastic approximation", 2026,
        section 4.
    """
    return jnp.max(jax.vmap(linalg.singular_values)(matrix - jnp.mean(matrix, 0, keepdims=True)))


@lifted("(n,d)->()")
def fixed_point_spread(local: jax.Array) -> jax.Array:
    """Delta* = (1 / N) sum_c |theta_c* - mean_c' theta_c'*|^2.

    Args:
        local: `f[..., N, d]` theta_c*.

    Returns:
        `f[...]`.

    Reference: Labbi, Mangold, Moulines, "Best of both worlds in federated linear stochastic approximation", 2026,
        section 4.
    """
    return jnp.mean(jnp.sum((local - jnp.mean(local, 0, keepdims=True)) ** 2, -1))


@lifted("(n,d),(d)->()")
def personalization_gap(local: jax.Array, shared: jax.Array) -> jax.Array:
    """(1 / N) sum_c |theta_c* - theta|: what no shared model can remove, first order in eps_P + eps_r.

    Args:
        local: `f[..., N, d]` theta_c*.
        shared: `f[..., d]` theta, such as theta*.

    Returns:
        `f[...]`.
    """
    return jnp.mean(jnp.linalg.norm(local - shared[None], axis=-1))


_fixed_point = lifted("(d,d),(d)->(d)", precise=True)(solution)


@lifted("(s,d),(s,a,s),(s,a),(s,a),(s),(),()->(d,d),(d)")
def _td_system(
    features: jax.Array, kernel: jax.Array, reward: jax.Array, policy: jax.Array, law: jax.Array, discount: Any,
    trace_decay: Any,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    chain = jnp.einsum("sat,sa->st", kernel, policy)
    identity = jnp.eye(len(chain), dtype=chain.dtype)
    weighted = law[:, None] * features
    # Z^T = Phi^T D (I - gamma lambda P)^-1: the trace's expectation given the state it meets.
    trace = linalg.solve((identity - discount * trace_decay * chain).T, weighted)
    matrix = trace.T @ (features - discount * chain @ features)
    return matrix, trace.T @ jnp.sum(policy * reward, -1)

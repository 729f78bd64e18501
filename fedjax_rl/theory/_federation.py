"""The averaged MDP of a federation, and how far its agents are apart."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_rl.core import check, check_choice

from ._lifted import check_law, lifted


class AveragedMDP(NamedTuple):
    """One MDP in the place of N."""

    kernel: jax.Array  # f[..., S, A, S]
    reward: jax.Array  # f[..., S, A]


def averaged_mdp(kernel: jax.Array, reward: jax.Array, weight: jax.Array | None = None) -> AveragedMDP:
    """The MDP with kernel sum_c w_c P_c and reward sum_c w_c r_c.

    With weights w_c(s) = mu_c(s) / sum_c' mu_c'(s), agent c's stationary law, the fixed point of federated on-policy TD
    is the TD fixed point of this MDP under the law mean_c mu_c. With equal weights it is not, unless all agents visit
    states equally often: see `td_fixed_points`.

    Args:
        kernel: `f[N, S, A, S]` P_c(s' | s, a).
        reward: `f[N, S, A]`, or `f[S, A]` for a common reward.
        weight: `f[N]` or `f[N, S]`, nonnegative, divided by its sum over the agents; None: equal.

    Returns:
        The averaged MDP.

    Raises:
        ValueError: rows of a kernel do not sum to one, or the weights of a state are negative or sum to zero.
    """
    check_law("kernel", kernel)
    kernel = jnp.asarray(kernel)
    reward = jnp.broadcast_to(jnp.asarray(reward), kernel.shape[:-1])
    weight = jnp.ones(len(kernel), kernel.dtype) if weight is None else jnp.asarray(weight)
    check("weight", weight, lambda w: (w >= 0).all(), "must be nonnegative")
    check("weight", weight, lambda w: (w.sum(0) > 0).all(), "must have a positive sum over the agents for every state")
    weight = jnp.broadcast_to(weight if weight.ndim == 2 else weight[:, None], kernel.shape[:2])
    weight = weight / jnp.sum(weight, 0, keepdims=True)
    return AveragedMDP(jnp.einsum("ns,nsat->sat", weight, kernel), jnp.einsum("ns,nsa->sa", weight, reward))


@lifted("(n,s,a,s)->()")
def transition_heterogeneity(kernel: jax.Array) -> jax.Array:
    """eps_P = max_{c, c', s, a} TV(P_c(. | s, a), P_c'(. | s, a)), TV being half the L1 norm.

    Args:
        kernel: `f[..., N, S, A, S]`; the work grows with N^2, the memory with N.

    Returns:
        `f[...]` in [0, 1].

    Reference: Labbi et al., "Federated UCBVI: communication-efficient federated regret minimization with heterogeneous
        agents", 2025.
    """
    return jnp.max(lax.map(lambda own: jnp.max(jnp.sum(jnp.abs(kernel - own[None]), -1)), kernel)) / 2


@lifted("(n,s,a)->()")
def reward_heterogeneity(reward: jax.Array) -> jax.Array:
    """eps_r = max_{c, c', s, a} |r_c(s, a) - r_c'(s, a)|.

    Args:
        reward: `f[..., N, S, A]`.

    Returns:
        `f[...]` in the units of the reward.
    """
    return jnp.max(jnp.max(reward, 0) - jnp.min(reward, 0))


@lifted("(n,s,a,s)->()")
def kernel_deviation(kernel: jax.Array, *, reduce: str = "max") -> jax.Array:
    """kappa: how far the kernels are from their mean, in the norm |P|_{inf,1} = max_{s, a} sum_s' |P(s' | s, a)|.

    Two definitions are in use: "max", max_c |P_c - Pbar|_{inf,1}, and "mean", (1 / N) sum_c |P_c - Pbar|_{inf,1}. The
    total variation is half of either.

    Args:
        kernel: `f[..., N, S, A, S]`.
        reduce: over the agents, "max" or "mean".

    Returns:
        `f[...]` in [0, 2].

    Reference: "max": Wang, Yang, Su, "Convergence rates of federated Q-learning across heterogeneous environments",
        2024; "mean": Jin et al., "Federated reinforcement learning with environment heterogeneity", 2022.
    """
    check_choice("reduce", reduce, ("max", "mean"))
    deviation = jnp.max(jnp.sum(jnp.abs(kernel - jnp.mean(kernel, 0, keepdims=True)), -1), (-2, -1))
    return jnp.max(deviation) if reduce == "max" else jnp.mean(deviation)


@lifted("(n,s,a,s)->()")
def relative_transition_heterogeneity(kernel: jax.Array) -> jax.Array:
    """max_{c, c', s, a, s'} |P_c - P_c'| / P_c, where 0 / 0 = 0: the relative error between kernels.

    Args:
        kernel: `f[..., N, S, A, S]`.

    Returns:
        `f[...]`; inf where one agent reaches a state that another cannot reach.

    Reference: Wang et al., "Federated temporal difference learning with linear function approximation under
        environmental heterogeneity", 2024 (the definition as its public code uses it).
    """

    def against(own: jax.Array) -> jax.Array:
        difference = jnp.abs(kernel - own[None])
        return jnp.max(jnp.where(difference == 0, 0, difference / own[None]))

    return jnp.max(lax.map(against, kernel))


@lifted("(n,s,a,s),(s)->()")
def value_weighted_deviation(kernel: jax.Array, values: jax.Array) -> jax.Array:
    """max_c |(P_c - Pbar) V|_inf: the deviation of the kernels that a value function sees.

    Args:
        kernel: `f[..., N, S, A, S]`.
        values: `f[..., S]` V.

    Returns:
        `f[...]`, at most kappa / 2 times the span of V.
    """
    return jnp.max(jnp.abs(jnp.einsum("nsat,t->nsa", kernel - jnp.mean(kernel, 0, keepdims=True), values)))


@lifted("(),(),(),()->()")
def simulation_bound(transition_gap: Any, reward_gap: Any, discount: Any, reward_range: Any = 1.0) -> jax.Array:
    """|V_c^pi - V_c'^pi|_inf <= eps_r / (1 - gamma) + gamma eps_P (r_max - r_min) / (1 - gamma)^2 for every policy.

    Args:
        transition_gap: eps_P, by `transition_heterogeneity`.
        reward_gap: eps_r, by `reward_heterogeneity`.
        discount: gamma in [0, 1).
        reward_range: r_max - r_min over all agents.

    Returns:
        The bound, in the units of the value.

    Raises:
        ValueError: a number is negative, or the discount lies outside [0, 1).

    Reference: the simulation lemma, Kearns and Singh, "Near-optimal reinforcement learning in polynomial time", 2002,
        lemma 4, in the form of total variation.
    """
    return reward_gap / (1 - discount) + discount * transition_gap * reward_range / (1 - discount) ** 2


def policy_transfer_bound(transition_gap: Any, reward_gap: Any, discount: Any, reward_range: Any = 1.0) -> jax.Array:
    """V_c^* - V_c^pi <= twice the simulation bound, for pi optimal in another of the MDPs or in their average.

    The loss itself is often far below: it is zero until the best actions change.

    Args:
        transition_gap: eps_P, by `transition_heterogeneity`.
        reward_gap: eps_r, by `reward_heterogeneity`.
        discount: gamma in [0, 1).
        reward_range: r_max - r_min over all agents.

    Returns:
        The bound, in the units of the value.
    """
    return 2 * simulation_bound(transition_gap, reward_gap, discount, reward_range)

"""Federated Q-learning without noise: where local steps lead to under different kernels."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_rl.core import check, check_count

from ._control import policy_iteration
from ._federation import averaged_mdp
from ._lifted import lifted


class QLearningLimit(NamedTuple):
    """The limit of federated Q-learning with a constant step size."""

    action_values: jax.Array  # f[S, A]
    bias: jax.Array  # f[S, A] less Q* of the averaged MDP


def federated_q_limit(
    kernel: jax.Array, reward: jax.Array, discount: Any, step_size: Any, *, num_local_steps: int,
    max_rounds: int = 1_000_000,
) -> QLearningLimit:  # fmt: skip
    """The fixed point of E exact local steps and an average.

        Q_c <- (1 - eta) Q_c + eta (r_c + gamma P_c max_a Q_c)   E times for each agent, from Q;   Q <- mean_c Q_c

    A round is a contraction in the maximum norm with factor (1 - eta (1 - gamma))^E. For E = 1 its fixed point is Q* of
    the averaged MDP; for E > 1 it is off by O(eta (E - 1) kappa^2).

    Args:
        kernel: `f[N, S, A, S]` P_c(s' | s, a).
        reward: `f[N, S, A]`, or `f[S, A]` for a common reward.
        discount: gamma in [0, 1).
        step_size: eta in (0, 1].
        num_local_steps: E.
        max_rounds: a bound; the rounds needed grow as 1 / (eta E (1 - gamma)).

    Returns:
        The limit and its bias, both up to rounding.

    Raises:
        ValueError: not in float64, or a number is out of range.

    Reference: Wang, Yang, Su, "Convergence rates of federated Q-learning across heterogeneous environments", 2024
        (their algorithm without sampling noise).
    """
    check_count("num_local_steps", num_local_steps)
    check_count("max_rounds", max_rounds)
    check("step_size", step_size, lambda size: size <= 1, "must lie in (0, 1]", "beyond 1 a round need not contract")
    mean = averaged_mdp(kernel, reward)
    target = policy_iteration(mean.kernel, mean.reward, discount).action_values
    found = _federated_q_limit(
        target, kernel, reward, discount, step_size, num_local_steps=num_local_steps, max_rounds=max_rounds
    )
    return QLearningLimit(found, found - target)


@lifted("(s,a),(n,s,a,s),(n,s,a),(),(t)->(r,s,a)")
def federated_q_path(
    start: jax.Array, kernel: jax.Array, reward: jax.Array, discount: Any, step_sizes: jax.Array, *,
    num_local_steps: int,
) -> jax.Array:  # fmt: skip
    """The averages after each of the R rounds of E exact local steps, whose step sizes are given one by one.

    Args:
        start: `f[..., S, A]` Q before the first round.
        kernel: `f[..., N, S, A, S]` P_c(s' | s, a).
        reward: `f[..., N, S, A]`, or `f[S, A]` for a common reward.
        discount: gamma in [0, 1).
        step_sizes: `f[..., R E]` eta_t of local step t; a remainder of less than E steps is left out.
        num_local_steps: E.

    Returns:
        `f[..., R, S, A]`.

    Raises:
        ValueError: a number is out of range.
    """
    check_count("num_local_steps", num_local_steps)
    num_rounds = len(step_sizes) // num_local_steps
    steps = step_sizes[: num_rounds * num_local_steps].reshape(num_rounds, num_local_steps)

    def round_(worth: jax.Array, sizes: jax.Array) -> tuple[jax.Array, jax.Array]:
        following = _round(worth, kernel, reward, discount, sizes)
        return following, following

    return lax.scan(round_, start, steps)[1]


@lifted("(s,a),(n,s,a,s),(n,s,a),(),()->(s,a)", precise=True)
def _federated_q_limit(
    start: jax.Array, kernel: jax.Array, reward: jax.Array, discount: Any, step_size: Any, *, num_local_steps: int,
    max_rounds: int,
) -> jax.Array:  # fmt: skip
    sizes = jnp.full(num_local_steps, step_size, start.dtype)

    def step(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        worth, _, count = carry
        following = _round(worth, kernel, reward, discount, sizes)
        rounding = 2 * jnp.finfo(start.dtype).eps * jnp.max(jnp.abs(following))
        return following, jnp.max(jnp.abs(following - worth)) > rounding, count + 1

    carry = (start, jnp.bool_(True), jnp.int32(0))
    return lax.while_loop(lambda carry: carry[1] & (carry[2] < max_rounds), step, carry)[0]


def _round(worth: jax.Array, kernel: jax.Array, reward: jax.Array, discount: Any, step_sizes: jax.Array) -> jax.Array:
    def step(own: jax.Array, size: jax.Array) -> tuple[jax.Array, None]:
        target = reward + discount * jnp.einsum("nsat,nt->nsa", kernel, jnp.max(own, -1))
        return own + size * (target - own), None

    own, _ = lax.scan(step, jnp.broadcast_to(worth, reward.shape), step_sizes)
    return jnp.mean(own, 0)

"""Optimal policies of discounted MDPs."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_rl.core import check_count, check_range

from ._evaluation import _values
from ._lifted import lifted


class Optimum(NamedTuple):
    """The optimal values of an MDP and a deterministic policy that has them."""

    values: jax.Array  # f[..., S] V*
    action_values: jax.Array  # f[..., S, A] Q*
    policy: jax.Array  # f[..., S, A] one-hot rows


def policy_iteration(kernel: jax.Array, reward: jax.Array, discount: Any, *, max_iterations: int = 1000) -> Optimum:
    """V* by policy iteration: exact up to rounding.

        pi_{k+1}(s) = argmax_a r(s, a) + gamma sum_s' P(s' | s, a) V^{pi_k}(s')

    An action is given up only for one that is better by more than rounding, so equal actions do not cycle.

    Args:
        kernel: `f[..., S, A, S]` P(s' | s, a).
        reward: `f[..., S, A]`.
        discount: gamma in [0, 1).
        max_iterations: a bound that random MDPs do not come near; they need about 10.

    Returns:
        The optimum; the policy has the given leading axes.

    Reference: Howard, "Dynamic programming and Markov processes", 1960; Puterman, 1994, section 6.4.
    """
    check_count("max_iterations", max_iterations)
    return Optimum(*_policy_iteration(kernel, reward, discount, max_iterations=max_iterations))


def value_iteration(
    kernel: jax.Array, reward: jax.Array, discount: Any, *, tolerance: float = 1e-10,
    max_iterations: int = 1_000_000,
) -> Optimum:  # fmt: skip
    """V* by value iteration: |V - V*|_inf <= tolerance, as far as the dtype allows.

        V_{k+1}(s) = max_a r(s, a) + gamma sum_s' P(s' | s, a) V_k(s')

    Args:
        kernel: `f[..., S, A, S]` P(s' | s, a).
        reward: `f[..., S, A]`.
        discount: gamma in [0, 1).
        tolerance: in the units of the value.
        max_iterations: of the operator.

    Returns:
        The values, one more application of the operator, and a policy greedy in it.

    Reference: Puterman, "Markov decision processes", 1994, section 6.3.
    """
    check_range("tolerance", tolerance, low=0.0, open_low=True)
    check_count("max_iterations", max_iterations)
    found = _value_iteration(kernel, reward, discount, tolerance=tolerance, max_iterations=max_iterations)
    return Optimum(*found)


@lifted("(s,a)->(s,a)")
def greedy_policy(action_values: jax.Array) -> jax.Array:
    """The policy that plays the first of the best actions.

    Args:
        action_values: `f[..., S, A]`.

    Returns:
        `f[..., S, A]` one-hot rows.
    """
    return _one_hot(jnp.argmax(action_values, -1), action_values)


def _one_hot(actions: jax.Array, like: jax.Array) -> jax.Array:
    return jax.nn.one_hot(actions, like.shape[-1], dtype=like.dtype)


@lifted("(s,a,s),(s,a),()->(s),(s,a),(s,a)")
def _policy_iteration(
    kernel: jax.Array, reward: jax.Array, discount: Any, *, max_iterations: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    unit = jnp.finfo(reward.dtype).eps

    def evaluate(actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = _values(kernel, reward, _one_hot(actions, reward), discount, jnp.zeros((), reward.dtype))
        return values, reward + discount * jnp.einsum("sat,t->sa", kernel, values)

    def improve(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        actions, _, count = carry
        _, worth = evaluate(actions)
        rounding = 16 * unit * (1 + jnp.max(jnp.abs(worth))) / (1 - discount)
        kept = jnp.take_along_axis(worth, actions[:, None], 1)[:, 0]
        better = jnp.where(jnp.max(worth, -1) > kept + rounding, jnp.argmax(worth, -1), actions)
        return better, jnp.any(better != actions), count + 1

    start = jnp.argmax(reward, -1)
    actions, _, _ = lax.while_loop(
        lambda carry: carry[1] & (carry[2] < max_iterations), improve, (start, jnp.bool_(True), jnp.int32(0))
    )
    values, worth = evaluate(actions)
    return values, worth, _one_hot(actions, reward)


@lifted("(s,a,s),(s,a),()->(s),(s,a),(s,a)")
def _value_iteration(
    kernel: jax.Array, reward: jax.Array, discount: Any, *, tolerance: float, max_iterations: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    unit = jnp.finfo(reward.dtype).eps

    def backup(values: jax.Array) -> jax.Array:
        return reward + discount * jnp.einsum("sat,t->sa", kernel, values)

    def step(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        values, _, count = carry
        following = jnp.max(backup(values), -1)
        # Below a few units in the last place the values only dither.
        enough = jnp.maximum(tolerance * (1 - discount), 4 * unit * jnp.max(jnp.abs(following)))
        return following, jnp.max(jnp.abs(following - values)) > enough, count + 1

    start = jnp.max(reward, -1) / (1 - discount)
    values, _, _ = lax.while_loop(
        lambda carry: carry[1] & (carry[2] < max_iterations), step, (start, jnp.bool_(True), jnp.int32(0))
    )
    worth = backup(values)
    return values, worth, _one_hot(jnp.argmax(worth, -1), reward)

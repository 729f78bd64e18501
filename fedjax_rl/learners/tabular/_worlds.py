"""What the learners of finite MDPs ask of the world, and what they take from it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class World(NamedTuple):
    """A batch whose only row is a whole MDP, which exact steps learn from; leaves [1, ...]."""

    kernel: jax.Array  # f[1, S, A, S]
    reward: jax.Array  # f[1, S, A]
    initial: jax.Array  # f[1, S]


def world_of(physics: Any, dtype: Any) -> World:
    """One agent's MDP as a batch."""
    return World(*(jnp.asarray(x, dtype)[None] for x in (physics.kernel, physics.reward, physics.initial)))


def check_finite_mdp(env: Any, physics: Any, name: str) -> None:
    """Raises unless one agent plays one discounted finite MDP; `physics` as shapes only.

    Raises:
        ValueError: there is no kernel f[S, A, S] in the physics.
    """
    kernel = getattr(physics, "kernel", None)
    if kernel is None or len(kernel.shape) != 3 or not hasattr(env, "num_states"):
        raise ValueError(
            f"family must be of discounted finite MDPs with {name}, got {env.name}; see fedjax_rl.envs.tabular"
        )


def check_on_policy(physics: Any, name: str, remedy: str) -> None:
    """Raises where the world tells agents how to act, and what is learned would be wrong under any policy but its own.

    A behaviour policy says how data are collected along an agent's chain. It plays no part where the MDP is known, or
    where a simulator is put anywhere.

    Raises:
        ValueError: there are behaviour policies in the physics.
    """
    if hasattr(physics, "behaviour"):
        raise ValueError(
            f"family must not prescribe behaviour policies with {name}, which learns from the chain of its own policy "
            f"and corrects for no other, got those of behaviour_family; take the family without them, or {remedy}"
        )


def check_sizes(env: Any, name: str, num_states: int, num_actions: int) -> None:
    """Raises unless the environment has as many states as features, and as many actions as the array of this name."""
    if env.num_states != num_states:
        raise ValueError(f"features must have as many rows as the MDP has states, {env.num_states}, got {num_states}")
    if env.num_actions != num_actions:
        raise ValueError(
            f"{name} must have as many columns as the MDP has actions, {env.num_actions}, got {num_actions}"
        )


def num_transitions(env: Any) -> int:
    """The most (s, a, s') that may have a probability above zero: what the environment knows, else all."""
    return getattr(env, "num_transitions", env.num_states**2 * env.num_actions)


def check_table(name: str, table: Any, env: Any) -> None:
    """Raises unless a concrete value is a number or f[S, A] that fits the environment."""
    shape = (env.num_states, env.num_actions)
    if np.ndim(table) != 0 and np.shape(table) != shape:
        raise ValueError(f"{name} must be a number or have shape {list(shape)}, got {list(np.shape(table))}")


def table_of(env: Any, value: Any) -> jax.Array:
    """f[S, A] in the default floating type, from a number or from a table."""
    return jnp.broadcast_to(jnp.asarray(value, jnp.result_type(float)), (env.num_states, env.num_actions))

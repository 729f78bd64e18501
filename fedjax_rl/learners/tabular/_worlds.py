"""What the learners of finite MDPs ask of the world."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check_finite_mdp(env: Any, physics: Any, name: str) -> None:
    """Raises unless one agent plays one discounted finite MDP; `physics` as shapes only.

    Raises:
        ValueError: there is no kernel f[S, A, S] in the physics.
    """
    kernel = getattr(physics, "kernel", None)
    if kernel is None or len(kernel.shape) != 3 or not hasattr(env, "num_states"):
        raise ValueError(
            f"family must be one of discounted finite MDPs with {name}, got {env.name}; see fedjax_rl.envs.tabular"
        )


def check_table(name: str, table: Any, env: Any) -> None:
    """Raises unless a concrete value is a number or f[S, A] that fits the environment."""
    shape = (env.num_states, env.num_actions)
    if np.ndim(table) != 0 and np.shape(table) != shape:
        raise ValueError(f"{name} must be a number or have shape {list(shape)}, got {list(np.shape(table))}")


def table_of(env: Any, value: Any) -> jax.Array:
    """f[S, A] in the default floating type, from a number or from a table."""
    return jnp.broadcast_to(jnp.asarray(value, jnp.result_type(float)), (env.num_states, env.num_actions))

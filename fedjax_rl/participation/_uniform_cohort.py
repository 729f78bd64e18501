"""A uniform sample of agents without replacement."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import Cohort, Job, Participation, check_count, component, static


@component
class UniformCohort(Participation):
    """M distinct agents, every subset equally likely; build it with `uniform_cohort`."""

    size: int = static()

    def check(self, num_agents: int, job: Job) -> None:
        check_size(self.size, num_agents)

    def init(self, key: jax.Array, num_agents: int, job: Job) -> Any:
        return jnp.float32(0)

    def sample(self, key: jax.Array, state: Any, num_agents: int) -> tuple[Any, Cohort]:
        index = sample_distinct(key, num_agents, self.size)
        time = state + 1
        return time, Cohort(index, jnp.ones(self.size, bool), jnp.ones(self.size, jnp.float32), None, time)


def check_size(size: int, num_agents: int) -> None:
    """Raises `ValueError` when a cohort would be larger than all."""
    if size > num_agents:
        raise ValueError(
            f"size must not exceed num_agents = {num_agents}, got {size}; use everyone() for full participation"
        )


def sample_distinct(key: jax.Array, num: int, size: int) -> jax.Array:
    """i32[size] distinct numbers below `num`, every subset equally likely, in O(size log size).

    Draws with replacement and draws again what came up twice. The values take part symmetrically, so the set is
    uniform. More than half of the numbers come from a permutation, which then costs no more.
    """
    if 2 * size > num:
        return jax.random.permutation(key, num)[:size].astype(jnp.int32)

    def repeated(index: jax.Array) -> jax.Array:
        order = jnp.argsort(index)
        ordered = index[order]
        again = jnp.concatenate([jnp.zeros(1, bool), ordered[1:] == ordered[:-1]])
        return jnp.zeros(size, bool).at[order].set(again, unique_indices=True)

    def redraw(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        attempt, index, again = carry
        fresh = jax.random.randint(jax.random.fold_in(key, attempt), (size,), 0, num, dtype=jnp.int32)
        index = jnp.where(again, fresh, index)
        return attempt + 1, index, repeated(index)

    first = (jnp.int32(0), jnp.zeros(size, jnp.int32), jnp.ones(size, bool))
    return jax.lax.while_loop(lambda carry: jnp.any(carry[2]), redraw, first)[1]


def uniform_cohort(size: int) -> Participation:
    """M distinct agents per round, drawn uniformly without replacement; the cost of a round follows M, not N.

    Args:
        size: M, at most the number of agents.

    Reference: McMahan et al., "Communication-efficient learning of deep networks from decentralized data", 2017.
    """
    check_count("size", size)
    return UniformCohort(size)

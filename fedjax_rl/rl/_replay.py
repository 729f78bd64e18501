"""Memory of what one agent has lived through: a ring buffer, written in place."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..core import check_count


PyTree = Any


class Replay(NamedTuple):
    """The last `capacity` rows of ONE agent; build it with `init_replay`.

    Carried by a `scan` that donates or owns it, a block is written into the buffer where it lies: one
    `dynamic_update_slice`, under `vmap` a scatter of one window per agent, and no copy of the buffer.
    """

    rows: PyTree  # leaves [capacity, ...]
    cursor: jax.Array  # i32[] where the next block begins
    size: jax.Array  # i32[] rows that hold something

    @property
    def capacity(self) -> int:
        """Rows there is room for."""
        return jax.tree.leaves(self.rows)[0].shape[0]

    def add(self, rows: PyTree) -> "Replay":
        """Writes a block over the oldest rows.

        Args:
            rows: leaves [B, ...]. B divides the capacity and is the same in every call, so that a block never runs over
                the end of the buffer.

        Raises:
            ValueError: B does not divide the capacity.
        """
        block = jax.tree.leaves(rows)[0].shape[0]
        if self.capacity % block:
            raise ValueError(
                f"capacity must be a multiple of the {block} rows of a block, got {self.capacity}; "
                f"use {-(-self.capacity // block) * block}"
            )

        def write(old: jax.Array, new: jax.Array) -> jax.Array:
            return lax.dynamic_update_slice_in_dim(old, new, self.cursor, 0)

        cursor = (self.cursor + jnp.int32(block)) % jnp.int32(self.capacity)
        size = jnp.minimum(self.size + jnp.int32(block), jnp.int32(self.capacity))
        return Replay(jax.tree.map(write, self.rows, rows), cursor, size)

    def sample(self, key: jax.Array, num_rows: int) -> PyTree:
        """Draws uniformly, with replacement, from what is filled; from an empty buffer come zeros.

        Args:
            key: of the draw.
            num_rows: S.

        Returns:
            leaves [S, ...].
        """
        index = jax.random.randint(key, (num_rows,), 0, jnp.maximum(self.size, 1), jnp.int32)
        return jax.tree.map(lambda x: x.at[index].get(mode="promise_in_bounds"), self.rows)


def init_replay(row: PyTree, capacity: int) -> Replay:
    """An empty buffer.

    Args:
        row: an example of one row, leaves [...]: arrays or `ShapeDtypeStruct`s; only shapes and dtypes count.
        capacity: rows there is room for; a multiple of the blocks that will be added.

    Reference: Lin, "Self-improving reactive agents based on reinforcement learning, planning and teaching", 1992,
        section 3.2 (experience replay).
    """
    check_count("capacity", capacity)
    zeros = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), row)
    return Replay(zeros, jnp.int32(0), jnp.int32(0))

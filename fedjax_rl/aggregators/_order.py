"""What the order statistics share."""

import jax
import jax.numpy as jnp


def sorted_present(x: jax.Array, present: jax.Array) -> jax.Array:
    """Sorts [M, ...] along axis 0, absent messages last (as +inf)."""
    return jnp.sort(jnp.where(jnp.reshape(present, present.shape + (1,) * (x.ndim - 1)), x, jnp.inf), axis=0)


def mean_of_ranks(ordered: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """The mean of the ranks low <= r < high of a sorted [M, ...]; zero where no rank is."""
    rank = jnp.reshape(jnp.arange(ordered.shape[0]), (-1, *(1,) * (ordered.ndim - 1)))
    kept = jnp.where((rank >= low) & (rank < high), ordered, 0.0)
    return jnp.sum(kept, 0) / jnp.maximum(high - low, 1).astype(ordered.dtype)

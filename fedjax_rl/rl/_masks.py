"""Sums over the real steps of a batch."""

import jax
import jax.numpy as jnp


def episode_mask(ended: jax.Array) -> jax.Array:
    """True up to and including the first end along the time axis.

    Args:
        ended: `bool[T, ...]` terminated or truncated.

    Returns:
        `bool[T, ...]`.
    """
    ends = jnp.cumsum(ended, axis=0, dtype=jnp.int32)
    return ends - ended.astype(jnp.int32) == 0


def masked_mean(x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """sum_i m_i x_i / sum_i m_i over all axes, 0 where nothing is counted.

    Args:
        x: `f32[...]`; what the mask excludes may be infinite or NaN.
        mask: `bool[...]` of the same shape; None counts everything.

    Returns:
        `f32[]`.
    """
    if mask is None:
        return jnp.mean(x)
    count = jnp.sum(mask, dtype=x.dtype)
    return jnp.sum(_kept(x, mask)) / jnp.maximum(count, 1)


def masked_std(x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Standard deviation of the population, sqrt(sum_i m_i (x_i - mean)^2 / sum_i m_i), over all axes.

    Args:
        x: `f32[...]`.
        mask: `bool[...]`; None counts everything.

    Returns:
        `f32[]`, 0 where nothing is counted.
    """
    return jnp.sqrt(masked_mean(jnp.square(x - masked_mean(x, mask)), mask))


def normalize(x: jax.Array, mask: jax.Array | None = None, epsilon: float = 1e-8) -> jax.Array:
    """(x - mean) / (std + epsilon) with the moments of what the mask counts; 0 elsewhere.

    Args:
        x: `f32[...]`.
        mask: `bool[...]`; None counts everything.
        epsilon: keeps equal numbers at 0.

    Returns:
        `f32[...]`.
    """
    mean = masked_mean(x, mask)
    scaled = (x - mean) / (masked_std(x, mask) + epsilon)
    return scaled if mask is None else _kept(scaled, mask)


def _kept(x: jax.Array, mask: jax.Array) -> jax.Array:
    """x where the mask holds; a product with 0 would keep NaN."""
    return jnp.where(mask, x, jnp.zeros((), x.dtype))

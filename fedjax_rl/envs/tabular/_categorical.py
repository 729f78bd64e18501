"""Drawing from finite laws by inverse cumulative distribution functions."""

import jax
import jax.numpy as jnp


def inverse_cdf(uniform: jax.Array, probabilities: jax.Array) -> jax.Array:
    """The quantile of a law on 0, ..., n - 1: the number of values whose cumulative probability does not exceed u.

        x = #{k : u >= p_0 + ... + p_k},  so that P(x = k) = p_k for u uniform on [0, 1)

    Sums of rounded probabilities may miss 1, and two equal sums may differ in their last digit. A value of probability
    0 is drawn in neither case: where no sum exceeds u, the last value of positive probability is taken.

    Args:
        uniform: f[...] in [0, 1).
        probabilities: f[..., n] each row sums to one.

    Returns:
        i32[...] values, each of positive probability.
    """
    num_values = probabilities.shape[-1]
    order = jax.lax.broadcasted_iota(jnp.int32, probabilities.shape, probabilities.ndim - 1)
    exceeds = uniform[..., None] < jnp.cumsum(probabilities, axis=-1)
    # The least value that exceeds u ranks first, else the greatest one; those of probability 0 rank last.
    rank = jnp.where(exceeds, 2 * num_values - order, order)
    return jnp.argmax(jnp.where(probabilities > 0, rank, -1), axis=-1).astype(jnp.int32)

"""Running mean and standard deviation of a stream, mergeable between agents."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import component


@component
class RunningStatistics:
    """Count, mean and sum of squared deviations of everything seen so far; start from `running_statistics(shape)`.

    Merging is associative and commutative, so agents may collect apart and be merged in any order.

    Reference: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
        1979, equation 2.1.
    """

    count: jax.Array  # f32[]; f32 because it may exceed 2^31
    mean: jax.Array  # f32[*shape]
    m2: jax.Array  # f32[*shape] sum of (x - mean)^2

    def update(self, batch: jax.Array, mask: jax.Array | None = None) -> "RunningStatistics":
        """Adds a batch.

        Args:
            batch: `f32[..., *shape]`.
            mask: `bool[...]` of the leading axes; None counts everything.
        """
        axes = tuple(range(batch.ndim - self.mean.ndim))
        batch = batch.astype(self.mean.dtype)
        if mask is None:
            mask = jnp.ones(batch.shape[: len(axes)], bool)
        wide = jnp.expand_dims(mask, range(len(axes), batch.ndim))
        count = jnp.sum(mask, dtype=self.count.dtype)
        mean = jnp.sum(jnp.where(wide, batch, 0), axes) / jnp.maximum(count, 1)
        deviation = jnp.where(wide, batch - jnp.expand_dims(mean, axes), 0)
        return self.merge(RunningStatistics(count, mean, jnp.sum(jnp.square(deviation), axes)))

    def merge(self, other: "RunningStatistics") -> "RunningStatistics":
        """The statistics of both streams together.

        n = n_a + n_b,  mean = mean_a + d n_b / n,  m2 = m2_a + m2_b + d^2 n_a n_b / n  with  d = mean_b - mean_a.
        """
        count = self.count + other.count
        share = other.count / jnp.maximum(count, 1)
        difference = other.mean - self.mean
        mean = self.mean + difference * share
        return RunningStatistics(count, mean, self.m2 + other.m2 + jnp.square(difference) * (self.count * share))

    @property
    def variance(self) -> jax.Array:
        """Of the population, `f32[*shape]`; 1 before anything was seen."""
        return jnp.where(self.count > 0, self.m2 / jnp.maximum(self.count, 1), 1)

    @property
    def std(self) -> jax.Array:
        """Standard deviation of the population, `f32[*shape]`; 1 before anything was seen."""
        return jnp.sqrt(self.variance)

    def normalize(self, x: jax.Array, epsilon: float = 1e-8, limit: float | None = None) -> jax.Array:
        """(x - mean) / sqrt(variance + epsilon), clipped to [-limit, limit] where one is given.

        Args:
            x: `f32[..., *shape]`.
            epsilon: keeps a constant at 0.
            limit: largest absolute value; None: no limit.
        """
        axes = tuple(range(x.ndim - self.mean.ndim))
        scale = jax.lax.rsqrt(self.variance + epsilon)
        scaled = (x - jnp.expand_dims(self.mean, axes)) * jnp.expand_dims(scale, axes)
        return scaled if limit is None else jnp.clip(scaled, -limit, limit)


def running_statistics(shape: tuple[int, ...] = (), dtype: Any = None) -> RunningStatistics:
    """Statistics of nothing yet.

    Args:
        shape: of one observation.
        dtype: floating type; None: the default one.
    """
    dtype = jnp.result_type(float) if dtype is None else dtype
    return RunningStatistics(jnp.zeros((), dtype), jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

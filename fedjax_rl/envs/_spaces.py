"""Spaces of actions and observations, with gymnax's attributes and methods."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Discrete:
    """The integers 0, ..., n - 1."""

    n: int

    @property
    def shape(self) -> tuple[int, ...]:
        """An element is a scalar."""
        return ()

    @property
    def dtype(self) -> Any:
        """Elements are i32."""
        return jnp.dtype(jnp.int32)

    def sample(self, key: jax.Array) -> jax.Array:
        """A uniform element, i32[]."""
        return jax.random.randint(key, (), 0, self.n, jnp.int32)

    def contains(self, x: Any) -> jax.Array:
        """Whether x is an element, bool[]."""
        return jnp.logical_and(jnp.asarray(x) >= 0, jnp.asarray(x) < self.n)


@dataclasses.dataclass(frozen=True, eq=False)
class Box:
    """Arrays between two bounds.

    Args:
        low: least value, one number or an array of `shape`; -inf is allowed.
        high: greatest value, one number or an array of `shape`; inf is allowed.
        shape: shape of an element.
        dtype: floating type of an element; None: the default one (f32, or f64 where 64 bits are enabled).
    """

    low: Any
    high: Any
    shape: tuple[int, ...]
    dtype: Any = None

    def __post_init__(self) -> None:
        if self.dtype is None:
            object.__setattr__(self, "dtype", jnp.result_type(float))

    def sample(self, key: jax.Array) -> jax.Array:
        """An element, uniform in the box; sides without a bound are cut at one from the bounded side, or at [-1, 1]."""
        low, high = (jnp.broadcast_to(jnp.asarray(bound, self.dtype), self.shape) for bound in (self.low, self.high))
        bottom = jnp.where(jnp.isfinite(low), low, jnp.where(jnp.isfinite(high), high - 1, -1))
        top = jnp.where(jnp.isfinite(high), high, bottom + jnp.where(jnp.isfinite(low), 1, 2))
        uniform = jax.random.uniform(key, self.shape, self.dtype)
        return bottom + uniform * (top - bottom)

    def contains(self, x: Any) -> jax.Array:
        """Whether every component of x lies between the bounds, bool[]."""
        return jnp.logical_and(jnp.all(x >= jnp.asarray(self.low)), jnp.all(x <= jnp.asarray(self.high)))

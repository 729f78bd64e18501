"""How much a message counts that is so many versions old."""

import abc
from typing import Any

import jax
import jax.numpy as jnp

from ..core import Envelope, check_range, component


class Discount(abc.ABC):
    """A function s of the staleness; a message is multiplied by it."""

    @abc.abstractmethod
    def __call__(self, staleness: jax.Array) -> jax.Array:
        """s in (0, 1], of the staleness [versions] as floating numbers."""

    def shrink(self, envelopes: Envelope) -> Envelope:
        """Multiplies payloads (floating leaves [M, ...]) and scales by s(staleness)."""
        staleness = envelopes.header.staleness
        factor = self(staleness.astype(jnp.result_type(float)))

        def times(x: jax.Array) -> jax.Array:
            if not jnp.issubdtype(x.dtype, jnp.inexact):
                return x
            return x * factor.astype(x.dtype).reshape(factor.shape + (1,) * (x.ndim - factor.ndim))

        marks = envelopes.marks._replace(scale=envelopes.marks.scale * factor)
        return envelopes._replace(payload=jax.tree.map(times, envelopes.payload), marks=marks)


@component
class Constant(Discount):
    """s = 1; build it with `constant`."""

    def __call__(self, staleness: jax.Array) -> jax.Array:
        return jnp.ones_like(staleness)


@component
class Hinge(Discount):
    """1 up to b, then falling as 1/d; build it with `hinge`."""

    slope: Any
    threshold: Any

    def __call__(self, staleness: jax.Array) -> jax.Array:
        return 1 / (1 + self.slope * jnp.maximum(staleness - self.threshold, 0))


@component
class Polynomial(Discount):
    """(1 + d)^-a; build it with `polynomial`."""

    exponent: Any

    def __call__(self, staleness: jax.Array) -> jax.Array:
        return (1 + staleness) ** -jnp.asarray(self.exponent, staleness.dtype)


def constant() -> Discount:
    """No discount, s(d) = 1: an old message counts as much as a new one."""
    return Constant()


def hinge(slope: float = 10.0, threshold: float = 6.0) -> Discount:
    """No discount up to a threshold, s(d) = 1 for d <= b, then s(d) = 1 / (1 + a (d - b)).

    Some programs leave out the 1 in the denominator, and jump at the threshold.

    Args:
        slope: a >= 0 [1/versions].
        threshold: b >= 0 [versions].

    Reference: Xie, Koyejo and Gupta, "Asynchronous federated optimization", 2019, section 5.
    """
    check_range("slope", slope, 0, open_high=True)
    check_range("threshold", threshold, 0, open_high=True)
    return Hinge(slope, threshold)


def polynomial(exponent: float = 0.5) -> Discount:
    """A power of the staleness, s(d) = (1 + d)^-a.

    Args:
        exponent: a >= 0.

    Reference: Xie, Koyejo and Gupta, "Asynchronous federated optimization", 2019, section 5.
    """
    check_range("exponent", exponent, 0, open_high=True)
    return Polynomial(exponent)


def check_discount(discount: Any) -> None:
    """Raises `ValueError` unless it is a discount or None."""
    if not (discount is None or isinstance(discount, Discount)):
        raise ValueError(f"discount must be a Discount or None, got {discount!r}; for example polynomial(0.5)")

"""Numbers that change while an agent learns."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import check_count, check_range, component


@component
class Ramp:
    """A straight line between two values, flat before and after; build it with `ramp`."""

    start: Any
    end: Any
    num_steps: Any

    def __call__(self, count: jax.Array) -> jax.Array:
        """The value after `count` i32[] local steps, f32[]."""
        share = jnp.clip(count / self.num_steps, 0, 1)
        return self.start + (self.end - self.start) * share


def ramp(start: float, end: float, num_steps: int) -> Ramp:
    """From `start` to `end` in equal steps, then constant: for entropy costs, exploration and other numbers.

    Args:
        start: value at the first local step.
        end: value from local step `num_steps` on.
        num_steps: length of the ramp, in local steps of an agent.
    """
    check_range("start", start)
    check_range("end", end)
    check_count("num_steps", num_steps)
    return Ramp(start, end, num_steps)


@component
class PowerDecay:
    """start (count + 1)^-exponent; build it with `power_decay`."""

    start: Any
    exponent: Any

    def __call__(self, count: jax.Array) -> jax.Array:
        """The value after `count` i32[] steps, f[]."""
        return self.start * jnp.power(count + 1.0, -self.exponent)


def power_decay(start: float, exponent: float) -> PowerDecay:
    """start (count + 1)^-exponent: the steps of stochastic approximation.

    Args:
        start: value at the first step.
        exponent: >= 0; 0 is constant.
    """
    check_range("start", start)
    check_range("exponent", exponent, 0, open_high=True)
    return PowerDecay(start, exponent)


def value_at(number: Any, count: jax.Array) -> Any:
    """The present value of a number or of a schedule."""
    return number(count) if callable(number) else number


def check_schedule(
    name: str, value: Any, low: float, high: float = float("inf"), *, open_low: bool = False, open_high: bool = False
) -> None:
    """`check_range` of a number, of both ends of a ramp, or of the largest value of a decay."""
    ends = (value.start, value.end) if isinstance(value, Ramp) else (value,)
    for end in (value.start,) if isinstance(value, PowerDecay) else ends:
        check_range(name, end, low, high, open_low=open_low, open_high=open_high)


def adapted(cost: jax.Array, distance: jax.Array, target: Any, limit: float) -> jax.Array:
    """A penalty's price after a step: 1.5 times where the distance exceeds 1.5 targets, by 1.5 where it falls short.

    Args:
        cost: f32[] so far.
        distance: f32[] what the penalty holds down.
        target: its wanted value.
        limit: largest price; the smallest is 1e-6.

    Reference: Schulman et al., "Proximal policy optimization algorithms", 2017, section 4.
    """
    factor = jnp.where(distance > 1.5 * target, 1.5, jnp.where(distance < target / 1.5, 1 / 1.5, 1.0))
    return jnp.clip(cost * factor.astype(cost.dtype), 1e-6, limit)

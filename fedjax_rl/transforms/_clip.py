"""Clipping of a message's norm."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import Envelope, Transform, check_range, component, tree


@component
class Clip(Transform):
    """x min(1, C / |x|); build it with `clip`."""

    max_norm: Any

    def encode(self, key: jax.Array, agent: Any, envelope: Envelope, download: Any) -> tuple[Any, Envelope]:
        # Dividing by the largest coordinate first keeps the square of a huge but finite message from overflowing.
        peak = jnp.max(jnp.stack([jnp.max(jnp.abs(x), initial=0) for x in jax.tree.leaves(envelope.payload)]))
        safe = jnp.where(peak > 0, peak, 1)
        norm = tree.norm(jax.tree.map(lambda x: x / safe, envelope.payload))
        factor = jnp.where(norm > 0, jnp.minimum(1, self.max_norm / safe / jnp.where(norm > 0, norm, 1)), 1)
        return agent, envelope._replace(payload=tree.scale(factor, envelope.payload))


def clip(max_norm: float) -> Transform:
    """Scales a message down to a Euclidean norm of at most C over all its leaves (moments and control variates too).

    Args:
        max_norm: C in (0, inf]; infinity is the identity.
    """
    check_range("max_norm", max_norm, 0, open_low=True, remedy="leave clip out, or use math.inf, for no clipping")
    return Clip(max_norm)

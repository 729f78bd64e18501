"""Any optax transformation as a message transform."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..core import Envelope, Transform, component, static


@component
class FromOptax(Transform):
    """Applies an optax transformation to every message; build it with `from_optax`."""

    transformation: optax.GradientTransformation = static()

    def init_agent(self, agent: jax.Array, message: Any) -> Any:
        return self.transformation.init(message)

    def encode(self, key: jax.Array, agent: Any, envelope: Envelope, download: Any) -> tuple[Any, Envelope]:
        payload, agent = self.transformation.update(envelope.payload, agent)
        return agent, envelope._replace(payload=payload)


def from_optax(transformation: optax.GradientTransformation) -> Transform:
    """Makes an optax transformation a message transform; its state is the agent's and commits on delivery.

    Args:
        transformation: one that needs no parameters, such as `optax.clip_by_global_norm(1.0)`, `optax.trace(0.9)`.
    """
    if not isinstance(transformation, optax.GradientTransformation):
        raise ValueError(
            f"transformation must be an optax.GradientTransformation, got {transformation!r}; "
            "for example optax.clip_by_global_norm(1.0)"
        )
    probe = jnp.zeros(1)
    try:
        transformation.update(probe, transformation.init(probe))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"transformation must work on messages alone, got one that asks for more ({error}); for example "
            "optax.clip_by_global_norm(1.0)"
        ) from error
    return FromOptax(transformation)

"""A distribution that is one action."""

import jax
import jax.numpy as jnp

from ..core import component
from ._distributions import Distribution


@component
class Deterministic(Distribution):
    """All probability on one action `f32[..., D]`; probabilities are counted, not measured (0 or 1, no density)."""

    action: jax.Array

    def sample(self, noise: jax.Array) -> jax.Array:
        """The action; the noise is not looked at."""
        del noise
        return self.action

    def sample_and_log_prob(self, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.action, self.entropy()

    def log_prob(self, action: jax.Array) -> jax.Array:
        """0 where the action is this one, else -inf."""
        return jnp.where(jnp.all(action == self.action, -1), self.entropy(), -jnp.inf)

    def entropy(self) -> jax.Array:
        """0."""
        return jnp.zeros_like(self.action[..., 0])

    def kl(self, other: "Deterministic") -> jax.Array:
        """0 where both are the same action, else infinite."""
        return -other.log_prob(self.action)

    def mode(self) -> jax.Array:
        return self.action

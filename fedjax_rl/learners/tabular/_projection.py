"""Projection of averaged logits on policies that are bounded away from the boundary of the simplex."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from ...core import check_range, component
from .._correction import Correction, Merging, require_movement


@component
class Projection(Correction):
    """Brings the averaged logits back into a ball; build it with `projection`."""

    radius: Any

    def check(self, training: Any) -> None:
        require_movement("projection", training)
        if training.corrections[-1] is not self:
            raise ValueError(
                f"corrections must end with projection, got {type(training.corrections[-1]).__name__} behind it, whose "
                "change of the movement would leave the set again"
            )

    def merge(self, shared: Any, extra: Any, moved: Any, merging: Merging) -> tuple[Any, Any]:
        del extra

        def back(params: jax.Array, moved: jax.Array) -> jax.Array:
            logits = params + moved
            centred = logits - jnp.mean(logits, -1, keepdims=True)
            length = jnp.sqrt(jnp.sum(jnp.square(centred), -1, keepdims=True))
            radius = jnp.asarray(self.radius, logits.dtype)
            outside = length > radius
            # Written as a step back, so that what is inside moves exactly as it would have.
            excess = jnp.where(outside, 1 - radius / jnp.where(outside, length, 1), 0)
            return moved - jnp.where(outside, excess * centred, 0)

        return shared, jax.tree.map(back, merging.params, moved)


def projection(radius: float = math.inf) -> Correction:
    """proj_T of the averaged parameters, where T keeps every action's probability away from zero.

        theta_{r+1} = proj_T(mean_c theta_c),  T = {theta: |theta(s, .) - mean_a theta(s, a)| <= R for all s}

    The sources name the projection and not the set. This one is a Euclidean ball for the centred logits of every state
    (of every coin, where actions are bits): it is convex, the projection on it is nonexpansive and in closed form, it
    leaves the mean logit alone, which no policy depends on, and on it pi(a | s) >= 1 / (1 + (A - 1) exp(sqrt(2) R)).
    A policy that is stationary for the average of regularised objectives has lambda log pi(. | s) equal to a weighted
    mean of the agents' Q(s, .) up to a constant, so R >= sqrt(A) / (2 lambda) times the largest spread of a Q(s, .)
    cuts nothing off.

    Args:
        radius: R > 0; infinite: no projection.

    Reference: Labbi et al., "Federated softmax policy gradient", AISTATS 2026 (RS-FedPG and b-RS-FedPG project after
        the average).
    """
    check_range("radius", radius, 0, open_low=True)
    return Projection(radius)

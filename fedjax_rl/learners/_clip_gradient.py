"""Bounds every local gradient."""

from typing import Any

import jax
import optax

from ..core import check_range, component
from ._correction import Context, Correction


@component
class ClipGradient(Correction):
    """g min(1, c / |g|); build it with `clip_gradient`."""

    max_norm: Any

    def gradient(self, key: jax.Array, gradient: Any, context: Context) -> tuple[Any, Any]:
        clip = optax.clip_by_global_norm(self.max_norm)
        return clip.update(gradient, clip.init(gradient))[0], context.memory


def clip_gradient(max_norm: float) -> Correction:
    """Scales each local gradient down to a norm, after the corrections before it.

    Args:
        max_norm: c > 0, of all leaves together.

    Reference: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
        algorithm 1.
    """
    check_range("max_norm", max_norm, 0, open_low=True)
    return ClipGradient(max_norm)

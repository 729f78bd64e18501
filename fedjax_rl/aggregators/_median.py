"""The coordinate-wise median."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import Aggregator, component
from ._order import mean_of_ranks, sorted_present


@component
class Median(Aggregator):
    """The median of every coordinate over the messages that arrived; build it with `median`."""

    def apply(self, key: jax.Array, state: Any, stack: Any, weight: jax.Array) -> tuple[Any, Any]:
        present = weight > 0
        num = jnp.sum(present)
        low, high = (num - 1) // 2, jnp.minimum(num // 2 + 1, num)  # one middle rank, or two; none where none came

        return state, jax.tree.map(lambda x: mean_of_ranks(sorted_present(x, present), low, high), stack)


def median() -> Aggregator:
    """The coordinate-wise median; a message counts once, whatever its weight.

    Reference: Yin et al., "Byzantine-robust distributed learning: towards optimal statistical rates", ICML 2018,
        definition 1.
    """
    return Median()

"""The coordinate-wise trimmed mean."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import Aggregator, check_range, component
from ._order import mean_of_ranks, sorted_present


@component
class TrimmedMean(Aggregator):
    """Drops the largest and smallest values of every coordinate, then averages; build it with `trimmed_mean`."""

    trim: Any

    def apply(self, key: jax.Array, state: Any, stack: Any, weight: jax.Array) -> tuple[Any, Any]:
        present = weight > 0
        num = jnp.sum(present)
        # The slack of some rounding errors keeps 0.29 x 100 from being rounded down to 28.
        exact = jnp.asarray(self.trim * num, jnp.result_type(float))
        cut = jnp.floor(exact * (1 + 4 * jnp.finfo(exact.dtype).eps)).astype(num.dtype)
        cut = jnp.clip(cut, 0, jnp.maximum((num - 1) // 2, 0))

        return state, jax.tree.map(lambda x: mean_of_ranks(sorted_present(x, present), cut, num - cut), stack)


def trimmed_mean(trim: float) -> Aggregator:
    """The coordinate-wise trimmed mean; a message counts once, whatever its weight.

    Args:
        trim: share of the messages dropped at EACH end, in [0, 0.5).

    Reference: Yin et al., "Byzantine-robust distributed learning: towards optimal statistical rates", ICML 2018,
        definition 2.
    """
    check_range("trim", trim, 0, 0.5, open_high=True, remedy="use median() for the limit")
    return TrimmedMean(trim)

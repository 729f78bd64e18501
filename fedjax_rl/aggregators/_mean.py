"""The weighted mean."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import Aggregator, Total, component


@component
class Mean(Aggregator):
    """sum_m w_m x_m / sum_m w_m; build it with `mean`."""

    linear = True

    def finish(self, key: jax.Array, state: Any, total: Total) -> tuple[Any, Any]:
        weight = jnp.where(total.weight > 0, total.weight, 1.0)
        return state, jax.tree.map(lambda x: x / weight.astype(x.dtype), total.payload)


def mean() -> Aggregator:
    """The weighted mean of the messages (FedAvg's rule); linear, so it streams.

    Reference: McMahan et al., "Communication-efficient learning of deep networks from decentralized data", 2017.
    """
    return Mean()

"""The weighted mean."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import Aggregator, Total, check_range, component


@component
class Mean(Aggregator):
    """sum_m w_m x_m / sum_m w_m; build it with `mean`."""

    expected: Any

    linear = True

    @property
    def averages(self) -> bool:
        return self.expected is None

    @property
    def recovers_sum(self) -> bool:
        return self.expected is None

    def finish(self, key: jax.Array, state: Any, total: Total) -> tuple[Any, Any]:
        weight = jnp.where(total.weight > 0, total.weight, 1.0) if self.expected is None else self.expected
        return state, jax.tree.map(lambda x: x / jnp.asarray(weight, x.dtype), total.payload)


def mean(expected: float | None = None) -> Aggregator:
    """The weighted mean of the messages (FedAvg's rule); linear, so it streams.

    Args:
        expected: divide by this weight instead of the weight received: then a message that was lost counts as zero,
            the model moves less where less arrives, and the expectation of the sum is what is divided. With uniform
            weights and everyone acting, N.

    Reference: McMahan et al., "Communication-efficient learning of deep networks from decentralized data", 2017.
    """
    if expected is not None:
        check_range("expected", expected, 0, open_low=True, open_high=True, remedy="None divides by what was received")
    return Mean(expected)

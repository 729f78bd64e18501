"""What an agent reports, and how reports of many agents become one number."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Mean(NamedTuple):
    """A quantity to be averaged over agents, weighted: sum of `total` over sum of `count` (NaN when nothing counts)."""

    total: jax.Array
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]


class Sum(NamedTuple):
    """A quantity to be added up over agents."""

    total: jax.Array


Metrics = Mapping[str, Any]  # name -> Mean | Sum | plain scalar (averaged over the acting agents)


def as_metric(value: Any) -> Mean | Sum:
    """A plain scalar counts once per agent."""
    return value if isinstance(value, Mean | Sum) else Mean(jnp.asarray(value), jnp.ones(()))


def mask(metric: Mean | Sum, present: jax.Array) -> Mean | Sum:
    """Removes the report of an agent that does not count; a non-finite part never reaches the others."""
    present = present & jnp.all(jnp.stack([jnp.isfinite(x) for x in metric]))
    return jax.tree.map(lambda x: jnp.where(present, x, jnp.zeros((), x.dtype)), metric)


def reduce(metric: Mean | Sum) -> jax.Array:
    """Folds the stacked reports [M] into one scalar."""
    sums = [jnp.sum(x) for x in metric]
    return sums[0] if len(sums) == 1 else sums[0] / sums[1]

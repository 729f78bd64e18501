"""What an agent reports, and how reports of many agents become one number."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from . import tree


class Mean(NamedTuple):
    """A quantity to be averaged over agents, weighted: sum of `total` over sum of `count` (NaN when nothing counts)."""

    total: jax.Array
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]


class Sum(NamedTuple):
    """A quantity to be added up over agents."""

    total: jax.Array


class Max(NamedTuple):
    """A quantity >= 0 whose largest value over agents counts."""

    value: jax.Array


Metric = Mean | Sum | Max
Metrics = Mapping[str, Any]  # name -> Metric or plain scalar (averaged over the acting agents)


def as_metric(value: Any) -> Metric:
    """A plain scalar counts once per agent."""
    return value if isinstance(value, Metric) else Mean(jnp.asarray(value), jnp.ones(()))


def mask(metric: Metric, present: jax.Array) -> Metric:
    """Removes the report of an agent that does not count; a non-finite part never reaches the others."""
    present = present & jnp.all(jnp.stack([jnp.isfinite(x) for x in metric]))
    return jax.tree.map(lambda x: jnp.where(present, x, jnp.zeros((), x.dtype)), metric)


def reduce(metrics: Mapping[str, Metric]) -> dict[str, jax.Array]:
    """Folds the stacked reports [M, ...] of every metric into one scalar each.

    All numbers of a type are added up at once: devices that hold a part of the reports each then meet once for them.
    """
    greatest = {name: metric for name, metric in metrics.items() if isinstance(metric, Max)}
    added = {name: metric for name, metric in metrics.items() if name not in greatest}
    folded = _fold(jnp.sum, added) | _fold(functools.partial(jnp.max, initial=0), greatest)
    return {
        name: folded[name][0] / folded[name][1] if isinstance(metric, Mean) else folded[name][0]
        for name, metric in metrics.items()
    }


def _fold(fold: Callable[..., jax.Array], metrics: Mapping[str, Metric]) -> dict[str, tuple[jax.Array, ...]]:
    """All columns of a type together."""
    if not metrics:
        return {}
    columns = jax.vmap(tree.pack)(dict(metrics))
    folded = jax.tree.map(functools.partial(fold, axis=0), columns).unpack()
    return {name: tuple(fold(x) for x in metric) for name, metric in folded.items()}

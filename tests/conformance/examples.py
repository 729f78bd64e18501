"""At least one instance of every registered component. A registry line without an example here fails the suite."""

import math

import optax

from fedjax_rl import aggregators, participation, topologies, transforms


AGGREGATORS = {
    "mean": [aggregators.mean()],
    "median": [aggregators.median()],
    "trimmed_mean": [aggregators.trimmed_mean(0.0), aggregators.trimmed_mean(0.2)],
}
# (transform, the same with its neutral parameter or None)
TRANSFORMS = {
    "clip": [(transforms.clip(0.5), transforms.clip(math.inf))],
    "from_optax": [
        (transforms.from_optax(optax.clip_by_global_norm(0.5)), transforms.from_optax(optax.identity())),
        (transforms.from_optax(optax.trace(0.9)), None),
    ],
}
TOPOLOGIES = {"star": [topologies.star()], "isolated": [topologies.isolated()]}
PARTICIPATION = {
    "everyone": [participation.everyone()],
    "uniform_cohort": [participation.uniform_cohort(3), participation.uniform_cohort(7)],
}


def every(table: dict) -> list:
    """All examples of a role."""
    return [example for examples in table.values() for example in examples]


def label(value: object) -> str:
    """A readable test id."""
    return str(value[0] if isinstance(value, tuple) else value)[:60]

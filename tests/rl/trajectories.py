"""Trajectories with an end of every kind in every position."""

import itertools
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np


T = 4
KINDS = ((False, False), (True, False), (False, True), (True, True))


def every_ending(seed: int = 0) -> dict[str, np.ndarray]:
    """One column per way to place {nothing, termination, truncation, both} on T steps; 4^T columns.

    What must not be read is NaN: final_value unless truncated and not terminated, last_value where the last step ended.
    """
    generator = np.random.default_rng(seed)
    choices = np.array(list(itertools.product(range(4), repeat=T))).T
    terminated, truncated = np.moveaxis(np.array(KINDS)[choices], -1, 0)
    shape = choices.shape
    ended = terminated | truncated
    return {
        "reward": generator.normal(size=shape),
        "value": generator.normal(size=shape),
        "terminated": terminated,
        "truncated": truncated,
        "final_value": np.where(truncated & ~terminated, generator.normal(size=shape), np.nan),
        "last_value": np.where(ended[-1], np.nan, generator.normal(size=shape[1:])),
        "ratio": generator.uniform(0.1, 2.5, shape),
    }


def arguments(data: dict[str, np.ndarray], names: tuple[str, ...]) -> dict[str, Any]:
    """The named arrays, for the subject."""
    return {name: jnp.asarray(data[name]) for name in names}


def columns(data: dict[str, np.ndarray], names: tuple[str, ...], *numbers: float) -> Iterator[list]:
    """One trajectory at a time as Python lists, and further numbers, for the oracles."""
    for e in range(data["reward"].shape[1]):
        yield [*(data[name][..., e].tolist() for name in names), *numbers]

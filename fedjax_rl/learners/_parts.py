"""Taking a model apart by the names of its parts, and putting it together again."""

from collections.abc import Collection
from typing import Any

import jax


PyTree = Any


def split(values: PyTree, parts: PyTree, names: Collection[str]) -> tuple[PyTree, PyTree]:
    """(leaves of these parts, all other leaves), each with None in the place of the other's.

    Args:
        values: like the parameters.
        parts: the name of the part that every leaf belongs to (`Objective.parts`).
        names: the parts of the first half.
    """
    inside = jax.tree.map(lambda x, part: x if part in names else None, values, parts)
    outside = jax.tree.map(lambda x, part: None if part in names else x, values, parts)
    return inside, outside


def join(inside: PyTree, outside: PyTree) -> PyTree:
    """Puts the two halves of `split` together."""
    return jax.tree.map(lambda x, y: y if x is None else x, inside, outside, is_leaf=lambda x: x is None)

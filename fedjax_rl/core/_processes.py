"""Reading arrays whose pieces several processes hold."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


PyTree = Any


def least(num_bytes: int) -> int:
    """The smallest of the processes' numbers [bytes]: what shapes follow from, all must know alike."""
    if jax.process_count() == 1:
        return num_bytes
    mebibytes = multihost_utils.process_allgather(np.array(num_bytes >> 20, np.int32))  # longer numbers do not travel
    return int(np.min(mebibytes)) << 20


def fetch(arrays: PyTree) -> PyTree:
    """Whole NumPy arrays on every process; where processes hold pieces, all of them must call it, in the same order."""

    def whole(x: Any) -> np.ndarray:
        if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
            x = multihost_utils.process_allgather(x, tiled=True)
        return np.asarray(x)

    return jax.tree.map(whole, arrays)

"""Acting now with the own model, now with the global one."""

from typing import Any

import jax

from ..core import check_range, component, tree
from ._correction import Correction, require_distribution


@component
class MixedBehaviour(Correction):
    """Collects with the global model now and then; build it with `mixed_behaviour`."""

    probability: Any

    def check(self, training: Any) -> None:
        require_distribution("mixed_behaviour", training)

    def behaviour(self, key: jax.Array, params: Any, anchor: Any, shared: Any, memory: Any) -> Any:
        return tree.where(jax.random.bernoulli(key, self.probability), anchor, params)


def mixed_behaviour(probability: float) -> Correction:
    """The behaviour policy of each local step is the downloaded model with this probability, else the agent's own.

    Data then are off-policy: combine it with `ppo`, whose loss has the ratio in it, or with `importance_weighting`.

    Args:
        probability: in [0, 1]; 0 changes nothing.
    """
    check_range("probability", probability, 0, 1)
    return MixedBehaviour(probability)

"""FedProx: stay near the global model."""

from typing import Any

import jax

from ..core import check_range, component
from ._correction import Context, Correction, require_movement


@component
class Proximal(Correction):
    """Adds (mu / 2) |params - anchor|^2 to the local loss; build it with `proximal`."""

    strength: Any

    def check(self, training: Any) -> None:
        require_movement("proximal", training)  # a single gradient is taken at the anchor itself

    def gradient(self, key: jax.Array, gradient: Any, context: Context) -> tuple[Any, Any]:
        pulled = jax.tree.map(lambda g, p, a: g + self.strength * (p - a), gradient, context.params, context.anchor)
        return pulled, context.memory


def proximal(strength: float) -> Correction:
    """FedProx: local loss + (mu / 2) |theta - theta_global|^2, which is also what is called FedRL-Prox.

    The anchor is the GLOBAL model that the agent downloaded, not its own last one (a common misprint).

    Args:
        strength: mu >= 0; 0 is FedAvg.

    Reference: Li et al., "Federated optimization in heterogeneous networks", MLSys 2020, eq. 2.
    """
    check_range("strength", strength, 0)
    return Proximal(strength)

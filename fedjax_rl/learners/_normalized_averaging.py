"""FedNova: averages what agents do per step, so that busy agents do not bend the objective."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import component, tree
from ._correction import Correction, Merging, require_movement, require_plain_sgd


@component
class NormalizedAveraging(Correction):
    """Uploads Delta_i / tau_i and tau_i; build it with `normalized_averaging`."""

    def check(self, training: Any) -> None:
        require_movement("normalized_averaging", training)
        require_plain_sgd("normalized_averaging", training)
        for other in training.corrections:
            if other.reads_movement:
                raise ValueError(
                    f"corrections must not join normalized_averaging and {type(other).__name__}, which reads the "
                    "movement that the former divides; drop one of them"
                )

    def message(self, memory: Any, shared: Any, moved: Any, num_steps: jax.Array) -> tuple[Any, Any, Any]:
        steps = num_steps.astype(jnp.result_type(float))
        return memory, tree.scale(1 / jnp.maximum(steps, 1), moved), steps

    def merge(self, shared: Any, extra: Any, moved: Any, merging: Merging) -> tuple[Any, Any]:
        return shared, tree.scale(extra, moved)


def normalized_averaging() -> Correction:
    """FedNova: without it, agents that take more local steps pull the model towards their own optimum.

    theta <- theta + tau_eff sum_i p_i Delta_i / tau_i with tau_eff = sum_i p_i tau_i, tau_i the gradient steps that
    agent i took (`Cohort.work` makes them differ) and p_i the normalised weights. Equal work is FedAvg.

    Reference: Wang et al., "Tackling the objective inconsistency problem in heterogeneous federated optimization",
        NeurIPS 2020, eq. 8 with plain local SGD.
    """
    return NormalizedAveraging()

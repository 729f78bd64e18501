"""Importance weights for data that another policy collected."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import check_choice, check_range, component, static
from ._correction import (
    Context,
    Correction,
    require_distribution,
    require_first_gradient,
    require_no_ratios,
    require_trajectories,
)


def trajectory_ratio(objective: Any, target: Any, behaviour: Any, batch: Any, limit: Any) -> jax.Array:
    """min(limit, p(tau|target) / p(tau|behaviour)) of the trajectory that a row belongs to, f32[S]; a constant."""
    difference = objective.log_prob(target, batch) - objective.log_prob(behaviour, batch)
    ratio = jnp.exp(objective.over_trajectories(batch, difference))
    return jax.lax.stop_gradient(jnp.minimum(ratio, limit))


@component
class ImportanceWeighting(Correction):
    """Multiplies each row's policy gradient by a ratio; build it with `importance_weighting`."""

    max_ratio: Any
    level: str = static()

    def check(self, training: Any) -> None:
        require_distribution("importance_weighting", training)
        if not training.objective.has_policy_gradient:
            raise ValueError(
                f"objective must have a loss of the form log pi A with importance_weighting, got "
                f"{type(training.objective).__name__}; use reinforce or actor_critic"
            )
        require_no_ratios("importance_weighting", training)
        require_first_gradient("importance_weighting", self, training)
        if self.level == "trajectory":
            require_trajectories("importance_weighting(level='trajectory')", training)

    def gradient(self, key: jax.Array, gradient: Any, context: Context) -> tuple[Any, Any]:
        objective, batch = context.objective, context.batch
        if self.level == "trajectory":
            ratio = trajectory_ratio(objective, context.params, context.behaviour, batch, self.max_ratio)
        else:
            difference = objective.log_prob(context.params, batch) - objective.log_prob(context.behaviour, batch)
            ratio = jax.lax.stop_gradient(jnp.minimum(jnp.exp(difference), self.max_ratio))
        return context.gradient_at(context.params, objective.reweigh(batch, ratio)), context.memory


def importance_weighting(max_ratio: float = 2.0, level: str = "step") -> Correction:
    """Reuses data that an older policy collected: several epochs, or a mixed behaviour, without the bias of pretending.

    Each row's policy gradient is multiplied by min(c, pi_theta(a|s) / pi_behaviour(a|s)), or by the product of these
    over the row's trajectory. For objectives of the form log pi A (`reinforce`, `actor_critic`); `ppo` has its own
    ratio.

    Args:
        max_ratio: c, largest weight; smaller is less noise and more bias.
        level: "step", or "trajectory" (unbiased where c is infinite, and of much larger variance).

    Reference: Precup, Sutton and Singh, "Eligibility traces for off-policy policy evaluation", ICML 2000 (the
        weights); Espeholt et al., "IMPALA", ICML 2018, section 4 (their truncation).
    """
    check_range("max_ratio", max_ratio, 0, open_low=True)
    check_choice("level", level, ("step", "trajectory"))
    return ImportanceWeighting(max_ratio, level)

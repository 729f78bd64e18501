"""Stay near the global policy, measured where the agent goes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core import check_choice, check_range, component, static
from ..rl import adapted, masked_mean
from ._correction import Context, Correction, require_distribution, require_movement


class Penalty(NamedTuple):
    """An agent's own price, where it adapts."""

    cost: jax.Array  # f32[] sigma
    distance: jax.Array  # f32[] after the last local step


@component
class KLToGlobal(Correction):
    """Adds sigma mean_s D(pi_global(.|s), pi(.|s)) to the local loss; build it with `kl_to_global`."""

    cost: Any
    target: Any
    distance: str = static()

    def check(self, training: Any) -> None:
        require_distribution("kl_to_global", training)
        if self.target is not None:
            require_movement("kl_to_global with a target", training)

    @property
    def has_server_variable(self) -> bool:
        return False

    def init_local(self, params: Any) -> Penalty:
        dtype = jnp.result_type(float)
        return Penalty(jnp.asarray(self.cost, dtype), jnp.zeros((), dtype))

    def gradient(self, key: jax.Array, gradient: Any, context: Context) -> tuple[Any, Any]:
        pull = jax.grad(self._far)(context.params, context.anchor, context.objective, context.batch)
        cost = self.cost if self.target is None else context.memory.cost
        return jax.tree.map(lambda g, p: g + cost * p, gradient, pull), context.memory

    def after_step(self, params: Any, anchor: Any, memory: Penalty, objective: Any, batch: Any) -> Penalty:
        if self.target is None:
            return memory
        return memory._replace(distance=self._far(params, anchor, objective, batch).astype(memory.distance.dtype))

    def _far(self, params: Any, anchor: Any, objective: Any, batch: Any) -> jax.Array:
        """mean_s D(pi_global(.|s), pi(.|s))."""
        there, mask = objective.distribution(anchor, batch)
        kl = jax.lax.stop_gradient(there).kl(objective.distribution(params, batch)[0])
        if self.distance == "sqrt_kl":  # smooth at 0, where the models are equal at the beginning of a round
            kl = jnp.sqrt(jnp.maximum(kl, 0) + 1e-12)
        return masked_mean(kl, mask)

    def message(self, memory: Penalty, shared: Any, moved: Any, num_steps: jax.Array) -> tuple[Any, Any, Any]:
        if self.target is None:
            return memory, moved, ()
        new = adapted(memory.cost, memory.distance, self.target, limit=20.0)
        return memory._replace(cost=jnp.where(num_steps > 0, new, memory.cost)), moved, ()


def kl_to_global(cost: float, distance: str = "kl", target: float | None = None) -> Correction:
    """FedKL: a penalty on the divergence from the global policy at the states that the agent visits.

    loss + sigma mean_s D, D = KL(pi_global(.|s) || pi(.|s)) or its square root. FedProx measures parameters, this
    measures behaviour. FedKL's whole objective is this with `ppo(surrogate="kl")`, whose other penalty bounds the step
    from the behaviour policy.

    Args:
        cost: sigma >= 0; the first one, where it adapts.
        distance: "kl" or "sqrt_kl" (FedKL's own choice).
        target: None keeps sigma; otherwise each agent multiplies or divides its own by 1.5 after a round whose last
            distance was 1.5 times above or below (FedKL's figure: 0.07), between 1e-6 and 20.

    Reference: Xie and Song, "FedKL: Tackling data heterogeneity in federated reinforcement learning by penalizing KL
        divergence", 2022, eq. 22.
    """
    check_range("cost", cost, 0)
    check_choice("distance", distance, ("kl", "sqrt_kl"))
    if target is not None:
        check_range("target", target, 0, open_low=True)
    return KLToGlobal(cost, target, distance)

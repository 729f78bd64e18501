"""How much an agent's message counts by what the agent can do."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core import Cohort, Job, Participation, check, check_flag, component, is_concrete, static
from ._system import System, arrays
from ._timed import Wrapper


@component
class ResourceWeights(Wrapper):
    """Weights by resources; build it with `resource_weights`."""

    resources: Any  # f[N], or a `System`
    inverse: bool = static()

    @property
    def needs_job(self) -> bool:
        return self.rule.needs_job or isinstance(self.resources, System)

    @property
    def complete(self) -> bool:
        return self.rule.complete

    @property
    def keeps_time(self) -> bool:
        return self.rule.keeps_time

    @property
    def charges_transfers(self) -> bool:
        return self.rule.charges_transfers

    def check(self, num_agents: int, job: Job) -> None:
        self.rule.check(num_agents, job)
        if isinstance(self.resources, System):
            self.resources.check(num_agents, job)
        elif np.shape(self.resources) != (num_agents,):
            raise ValueError(
                f"resources must be f[{num_agents}], one per agent, got shape {np.shape(self.resources)}; or a System"
            )

    def init_own(self, key: jax.Array, num_agents: int, job: Job) -> jax.Array:
        if isinstance(self.resources, System):
            return 1 / self.resources.expected(jnp.arange(num_agents), arrays(job))
        return jnp.asarray(self.resources, float)

    def change(self, key: jax.Array, own: jax.Array, cohort: Cohort) -> tuple[jax.Array, Cohort]:
        factor = cohort.take(own)
        factor = jnp.where(cohort.active, 1 / factor if self.inverse else factor, 0)
        total = jnp.sum(factor)
        # A factor, not a divisor, which a compiled program would replace by one and round differently.
        normal = jnp.sum(cohort.active) / jnp.where(total > 0, total, 1)
        return own, cohort._replace(weight=(cohort.weight * (factor * normal)).astype(jnp.float32))


def resource_weights(rule: Participation, resources: Any, inverse: bool = False) -> Participation:
    """Weighs agents by their resources R_k, or by 1/R_k, normalised over those who act: w_k <- w_k f_k / mean(f).

    f_k = R_k gives more to agents that are faster or more reliable, which lets them lead; 1/R_k gives more to the weak,
    as makes up for their taking part less often. The literature states 1/R_k for the first of the two aims.

    Args:
        rule: who acts.
        resources: R_k > 0, f[N]; or a system, whose speeds count: one over the expected seconds of a job.
        inverse: True for 1/R_k.

    Raises:
        ValueError: a value is wrong; by `make_round`: there are not as many resources as agents.
    """
    if not isinstance(rule, Participation):
        raise ValueError(f"rule must be a rule of participation, got {rule!r}; for example everyone()")
    check_flag("inverse", inverse)
    if not isinstance(resources, System):
        check(
            "resources", resources, lambda v: np.ndim(v) == 1 and np.all(np.isfinite(v)) and np.all(np.asarray(v) > 0),
            "must be f[N] > 0 or a System",
        )  # fmt: skip
        resources = np.asarray(resources, float) if is_concrete(resources) else resources
    return ResourceWeights(rule, resources, inverse)

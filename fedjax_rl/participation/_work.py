"""How many local steps each agent of a cohort does."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core import Cohort, Job, Participation, check, check_count, check_range, component, is_concrete, static
from ._system import System, arrays, check_system
from ._timed import Wrapper, check_rule
from ._water_filling import _alpha, water_filling


@component
class ProportionalWork(Wrapper):
    """Everyone ready at the same time; build it with `proportional_work`."""

    system: System
    seconds: Any

    @property
    def needs_job(self) -> bool:
        return True

    def check(self, num_agents: int, job: Job) -> None:
        self.rule.check(num_agents, job)
        self.system.check(num_agents, job)
        _check_parts("proportional_work", job)

    def init_own(self, key: jax.Array, num_agents: int, job: Job) -> Job:
        return arrays(job)

    @property
    def complete(self) -> bool:
        return self.rule.complete

    def change(self, key: jax.Array, own: Job, cohort: Cohort) -> tuple[Job, Cohort]:
        job, ids = own, cohort.ids()
        step = self.system.computing(ids, job) / job.num_local_steps
        travel = self.system.travelling(ids, job)
        seconds = self.seconds
        if seconds is None:
            seconds = jnp.max(jnp.where(cohort.active, travel + step, 0))
        fits = jnp.floor((seconds - travel) / step * (1 + 1e-5))  # room for rounding
        work = jnp.clip(fits, 1, job.num_local_steps).astype(jnp.int32)
        return job, cohort._replace(work=work)


@component
class AllocatedWork(Wrapper):
    """A budget of local steps; build it with `allocated_work`."""

    total: Any
    weights: Any
    utility: str | float = static()

    @property
    def needs_job(self) -> bool:
        return True

    def check(self, num_agents: int, job: Job) -> None:
        self.rule.check(num_agents, job)
        _check_parts("allocated_work", job)
        if np.shape(self.weights) not in ((), (num_agents,)):
            raise ValueError(f"weights must be a number or f[{num_agents}], got shape {np.shape(self.weights)}")

    def init_own(self, key: jax.Array, num_agents: int, job: Job) -> tuple[jax.Array, jax.Array]:
        weights = jnp.broadcast_to(jnp.asarray(self.weights, float), (num_agents,))
        return weights, jnp.asarray(job.num_local_steps, jnp.int32)

    def change(self, key: jax.Array, own: Any, cohort: Cohort) -> tuple[Any, Cohort]:
        weights, most = own
        weights = jnp.where(cohort.active, cohort.take(weights), 0)
        share = water_filling(self.total, self.utility, weights, most)
        whole = jnp.floor(share + 1e-4)  # room for rounding
        # What the whole numbers leave over goes to the largest remainders; among equal ones the lot decides.
        left = jnp.round(share.sum() - whole.sum())
        lot = jax.vmap(lambda agent: jax.random.uniform(jax.random.fold_in(key, agent)))(cohort.ids())
        order = jnp.lexsort((lot, jnp.round(whole - share, 4)))
        rank = jnp.zeros_like(order).at[order].set(jnp.arange(order.shape[0]), unique_indices=True)
        work = jnp.minimum(whole + (rank < left), most).astype(jnp.int32)
        return own, cohort._replace(active=cohort.active & (work > 0), work=work)


def _check_parts(name: str, job: Job) -> None:
    if job.num_local_steps < 2:
        raise ValueError(
            f"{name} divides local steps, and the learner has num_local_steps = {job.num_local_steps}; raise it"
        )


def proportional_work(rule: Participation, system: System, seconds: float | None = None) -> Participation:
    """Work in proportion to capacity: each agent of the cohort does as many local steps as fit into the same time.

    w_i = floor((T - travel_i) / step_i), at least 1 and at most the learner's `num_local_steps`, with expected times.
    Put `timed` around it for the time that the rounds take then.

    Args:
        rule: who acts.
        system: how long local steps take, and messages travel.
        seconds: T [s]; None: what the slowest agent of the cohort needs for one local step.
    """
    check_rule("proportional_work", rule)
    check_system(system)
    if seconds is not None:
        check_range("seconds", seconds, 0, math.inf, open_low=True, open_high=True)
    return ProportionalWork(rule, system, seconds)


def allocated_work(
    rule: Participation, total: int, utility: str | float = "log", weights: Any = 1.0
) -> Participation:  # fmt: skip
    """Shares a budget of local steps among the cohort, where agents gain less and less from more of them.

    The real shares of `water_filling` are rounded to whole steps that add up to the same; who gets none does not act.

    Args:
        rule: who acts.
        total: local steps of the whole cohort in a round.
        utility: "log", "sqrt", "log1p" or alpha > 0, as in `water_filling`.
        weights: what an agent's utility counts, a number or f[N] >= 0.
    """
    check_rule("allocated_work", rule)
    check_count("total", total)
    _alpha(utility)
    check("weights", weights, lambda v: np.all(np.isfinite(v)) and np.all(np.asarray(v) >= 0), "must be >= 0")
    return AllocatedWork(rule, total, np.asarray(weights, float) if is_concrete(weights) else weights, utility)

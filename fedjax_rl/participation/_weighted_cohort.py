"""Cohorts that prefer some agents, by given weights, by speed or by a deadline."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..core import Cohort, Job, Participation, check, check_count, check_range, component, is_concrete, static
from ._clocked import Informed
from ._system import System, arrays, check_system
from ._uniform_cohort import check_size, sample_distinct


class Weighing(NamedTuple):
    logits: jax.Array  # f[N]
    time: jax.Array  # f32[]


class Waiting(NamedTuple):
    job: Job
    time: jax.Array  # f32[]


@component
class WeightedCohort(Participation):
    """Likelier agents; build it with `weighted_cohort`."""

    weights: Any  # f[N]
    size: int = static()

    def check(self, num_agents: int, job: Job) -> None:
        if np.shape(self.weights) != (num_agents,):
            raise ValueError(f"weights must be f[{num_agents}], one per agent, got shape {np.shape(self.weights)}")
        if is_concrete(self.weights) and np.sum(np.asarray(self.weights) > 0) < self.size:
            raise ValueError(
                f"size must be at most the number of positive weights, {np.sum(np.asarray(self.weights) > 0)}, "
                f"got {self.size}"
            )

    def init(self, key: jax.Array, num_agents: int, job: Job) -> Weighing:
        return Weighing(jnp.log(jnp.asarray(self.weights, float)), jnp.float32(0))

    def sample(self, key: jax.Array, state: Weighing, num_agents: int) -> tuple[Weighing, Cohort]:
        return _draw(key, state, self.size)


@component
class ResourceCohort(Informed):
    """Fast agents are likelier; build it with `resource_cohort`."""

    system: System
    size: int = static()

    def check(self, num_agents: int, job: Job) -> None:
        super().check(num_agents, job)
        check_size(self.size, num_agents)

    def init(self, key: jax.Array, num_agents: int, job: Job) -> Weighing:
        return Weighing(-jnp.log(self.system.expected(jnp.arange(num_agents), arrays(job))), jnp.float32(0))

    def sample(self, key: jax.Array, state: Weighing, num_agents: int) -> tuple[Weighing, Cohort]:
        return _draw(key, state, self.size)


@component
class DeadlineCohort(Informed):
    """Candidates that will be ready in time; build it with `deadline_cohort`."""

    system: System
    deadline: Any
    size: int = static()

    def check(self, num_agents: int, job: Job) -> None:
        super().check(num_agents, job)
        check_size(self.size, num_agents)
        self.system.check_deadline(num_agents, job, self.deadline)

    def init(self, key: jax.Array, num_agents: int, job: Job) -> Waiting:
        return Waiting(arrays(job), jnp.float32(0))

    def sample(self, key: jax.Array, state: Waiting, num_agents: int) -> tuple[Waiting, Cohort]:
        index = sample_distinct(key, num_agents, self.size)
        return _cohort(state, index, self.system.expected(index, state.job) <= self.deadline)


def _draw(key: jax.Array, state: Weighing, size: int) -> tuple[Weighing, Cohort]:
    """Agents without replacement, with probabilities in proportion to exp(logits)."""
    noise = jax.random.gumbel(key, state.logits.shape, state.logits.dtype)
    index = jax.lax.top_k(state.logits + noise, size)[1].astype(jnp.int32)
    return _cohort(state, index, jnp.ones(size, bool))


def _cohort(state: Any, index: jax.Array, active: jax.Array) -> tuple[Any, Cohort]:
    time = state.time + 1
    return state._replace(time=time), Cohort(index, active, jnp.ones(index.shape, jnp.float32), None, time)


def weighted_cohort(weights: Any, size: int) -> Participation:
    """M distinct agents, drawn one after the other with probabilities in proportion to the weights of those left.

    The M largest of log w_i + Gumbel noise are such a sample. Compares all N agents: O(N) a round.

    Args:
        weights: f[N] >= 0, of which at least `size` are positive.
        size: M.

    Reference: Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006.
    """
    check(
        "weights", weights, lambda v: np.all(np.isfinite(v)) and np.all(np.asarray(v) >= 0), "must be finite and >= 0"
    )
    check_count("size", size)
    return WeightedCohort(np.asarray(weights, float) if is_concrete(weights) else weights, size)


def resource_cohort(system: System, size: int) -> Participation:
    """M distinct agents, drawn with probabilities in proportion to their speed: one over the expected seconds of a job.

    Fast rounds, and a bias towards what fast agents know. Compares all N agents: O(N) a round.

    Args:
        system: how long jobs take.
        size: M.
    """
    check_system(system)
    check_count("size", size)
    return ResourceCohort(system, size)


def deadline_cohort(system: System, size: int, deadline: float) -> Participation:
    """Of M agents drawn uniformly, those act whose job is expected to end by a deadline.

    As in FedCS, with a link of its own for every agent: then the largest set that meets the deadline is all who do.
    The cost of a round follows M. Slow agents never act. `timed` adds the time, and with the same deadline it also
    drops those who are late against expectation.

    Args:
        system: how long jobs take.
        size: M, candidates per round.
        deadline: [s], at least the time of the fastest agent.

    Reference: Nishio and Yonetani, "Client selection for federated learning with heterogeneous resources in mobile
        edge", ICC 2019.
    """
    check_system(system)
    check_count("size", size)
    check_range("deadline", deadline, 0, math.inf, open_low=True)
    return DeadlineCohort(system, deadline, size)

"""Rounds that end when enough gradients have arrived, whoever computed them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..core import Cohort, Job, Participation, check_choice, check_count, component, static
from ._clocked import Clocked
from ._system import System, arrays, check_system


class Race(NamedTuple):
    key: jax.Array  # of the system's randomness
    job: Job
    num_rounds: jax.Array  # i32[]
    time: jax.Array  # f[] [s]


@component
class GradientRace(Clocked):
    """Everyone works until enough gradients have arrived; build it with `gradient_race`."""

    system: System
    total: int = static()
    stop: str = static()
    most: int = static()

    def check(self, num_agents: int, job: Job) -> None:
        super().check(num_agents, job)
        if self.total > num_agents * self.most:
            raise ValueError(
                f"total must be at most num_agents x most = {num_agents} x {self.most}, got {self.total}; raise most, "
                "and num_local_steps of the learner with it"
            )
        if self.most > job.num_local_steps:
            raise ValueError(
                f"most must be at most {job.num_local_steps}, the learner's local steps in a round, got {self.most}; "
                "each local step is a gradient of the race: raise num_local_steps of the learner"
            )

    def init(self, key: jax.Array, num_agents: int, job: Job) -> Race:
        return Race(key, arrays(job), jnp.int32(0), jnp.zeros((), float))

    def sample(self, key: jax.Array, state: Race, num_agents: int) -> tuple[Race, Cohort]:
        del key
        agents = jnp.arange(num_agents, dtype=jnp.int32)
        step = self.system.computing(agents, state.job) / state.job.num_local_steps
        turns = state.num_rounds * self.most + jnp.arange(self.most, dtype=jnp.int32)
        luck = jax.vmap(lambda u: self.system.luck(state.key, agents, jnp.full_like(agents, u)))(turns)
        travel = self.system.travelling(agents, state.job)
        arrival = (travel[None] + jnp.cumsum(step[None] * luck, 0)).T  # f[N, K]
        order = jnp.argsort(arrival.ravel(), stable=True)  # by time, then by id
        last = self._last(order, num_agents)
        came = jnp.zeros(order.shape, bool).at[order].set(jnp.arange(order.shape[0]) <= last, unique_indices=True)
        work = came.reshape(arrival.shape).sum(1, dtype=jnp.int32)
        seconds = arrival.ravel()[order[last]].astype(state.time.dtype)
        time = state.time + seconds
        ones = jnp.ones(num_agents, jnp.float32)
        start = jnp.full(num_agents, state.time)
        cohort = Cohort(None, work > 0, ones, work, time, None, start, start + seconds)
        return state._replace(num_rounds=state.num_rounds + 1, time=time), cohort

    def _last(self, order: jax.Array, num_agents: int) -> jax.Array:
        """i32[]: the place in the order of the arrivals of the gradient that ends the round."""
        if self.stop == "total":
            return jnp.int32(self.total - 1)
        # With B_i gradients of agent i, sum 1 / B_i falls by 1 / (j - 1) - 1 / j at the j-th of an agent.
        j = order % self.most + 1
        falls = jnp.where(j > 1, 1 / (jnp.maximum(j - 1, 1) * j), 0.0)
        inverse = num_agents - jnp.cumsum(falls)
        everyone = jnp.cumsum(j == 1) == num_agents
        enough = everyone & (inverse <= num_agents**2 / self.total * (1 + 1e-5))  # room for rounding
        return jnp.argmax(enough.at[-1].set(True)).astype(jnp.int32)


def gradient_race(system: System, total: int, stop: str = "total", most: int = 16) -> Participation:
    """Everyone works with the model of the round's start until enough gradients have arrived; work under way is lost.

    Agent i's j-th gradient arrives at time c_i + h_i1 + ... + h_ij: c_i is the time that its model and its message
    travel, h_ij that of one of the learner's local steps, each with its own luck. The round ends with the arrival at
    which, B_i being the gradients of agent i so far,

        stop="total":     sum_i B_i = M                       (Rennala)
        stop="harmonic":  (1/N sum_i 1 / B_i)^-1 >= M / N     (Malenia; everyone delivers at least once)

    and agent i has done B_i local steps, which is the cohort's `work`; who has delivered none does not act. Weigh
    messages by "steps" for Rennala's mean over gradients, uniformly for Malenia's mean of means. Touches all N agents,
    as everyone competes: O(N K log N K) a round.

    Args:
        system: how long a local step takes.
        total: M >= 1.
        stop: "total" or "harmonic"; for "harmonic", M <= N K.
        most: K, the most gradients of an agent in a round, at most the learner's `num_local_steps`; who has delivered
            so many waits. Choose it so large that it is hardly ever reached: t_max / t_min times M / N, say.

    Reference: Tyurin, Spiridonov and Rudenko, arXiv 2509.24305, 2026 (AggregateRennala, AggregateMalenia).
    """
    check_system(system)
    check_count("total", total)
    check_choice("stop", stop, ("total", "harmonic"))
    check_count("most", most)
    return GradientRace(system, total, stop, most)

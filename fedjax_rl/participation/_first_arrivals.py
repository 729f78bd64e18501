"""The event clock: agents arrive when their jobs end, and start the next one at once."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core import Cohort, Job, Participation, check_count, check_range, component, static
from ._clocked import Clocked
from ._system import System, arrays, check_system


BRANCHES = 32


class Clock(NamedTuple):
    """Finish times are leaves of a tree whose nodes hold the smallest time below each of their branches.

    An arrival reads and writes one node per level, of which there are log N / log BRANCHES.
    """

    key: jax.Array  # of the system's randomness
    job: Job
    finish: tuple[jax.Array, ...]  # f[., BRANCHES] when each agent's present job ends [s]; from the leaves to the root
    start: jax.Array  # f[N] when each agent's present job began [s]
    following: jax.Array  # f[N] how long each agent's next job will take [s]
    turn: jax.Array  # i32[N] jobs that each has ended
    time: jax.Array  # f[] when the last batch closed [s]


class Arrivals(NamedTuple):
    """A batch while it fills up: what changes of the clock, and the arrivals so far."""

    finish: tuple[jax.Array, ...]
    following: jax.Array  # negative: that agent is in the batch
    slot: jax.Array  # i32[B] ids
    began: jax.Array  # f[B]
    ended: jax.Array  # f[B]
    num_jobs: jax.Array  # i32[B] jobs that each had ended before
    num: jax.Array  # i32[]
    open: jax.Array  # bool[]


@component
class FirstArrivals(Clocked):
    """The next B arrivals; build it with `first_arrivals`."""

    system: System
    deadline: Any
    batch: int = static()

    def check(self, num_agents: int, job: Job) -> None:
        super().check(num_agents, job)
        if self.batch > num_agents:
            raise ValueError(f"batch must not exceed num_agents = {num_agents}, got {self.batch}")

    def init(self, key: jax.Array, num_agents: int, job: Job) -> Clock:
        agents, job = jnp.arange(num_agents, dtype=jnp.int32), arrays(job)
        first, second = (self.system.seconds(key, agents, jnp.full_like(agents, u), job) for u in (0, 1))
        zero = jnp.zeros_like(first)
        return Clock(key, job, _tree_of(first), zero, second, jnp.zeros_like(agents), zero[0])

    def sample(self, key: jax.Array, state: Clock, num_agents: int) -> tuple[Clock, Cohort]:
        """Pops the next arrivals; the randomness is the system's, so `key` is not used."""
        del key
        due = jnp.inf if self.deadline is None else state.time + self.deadline
        slots, times = jnp.zeros(self.batch, jnp.int32), jnp.zeros(self.batch, state.time.dtype)
        empty = Arrivals(
            state.finish, state.following, slots, times, times, slots, jnp.int32(0), jnp.bool_(True),
        )  # fmt: skip

        def pop(batch: Arrivals) -> Arrivals:
            agent, path = _descend(batch.finish)
            time, seconds = jax.lax.optimization_barrier((path[0][2], batch.following[agent]))
            comes = (seconds >= 0) & (time <= due)
            k = batch.num
            return Arrivals(
                _replace(batch.finish, path, jnp.where(comes, time + seconds, time)),
                batch.following.at[agent].set(jnp.where(comes, -1, seconds)),
                # What does not come is no arrival: its slot becomes padding.
                batch.slot.at[k].set(agent), batch.began.at[k].set(state.start[agent]),
                batch.ended.at[k].set(time), batch.num_jobs.at[k].set(state.turn[agent]),
                k + comes, comes,
            )  # fmt: skip

        batch = jax.lax.while_loop(lambda b: b.open & (b.num < self.batch), pop, empty)
        active = jnp.arange(self.batch) < batch.num
        index = pad(batch.slot, active)
        last = jnp.max(jnp.where(active, batch.ended, 0.0))
        time = jnp.where(batch.num < self.batch, self._close(batch, last, due), last)
        after = self.system.seconds(state.key, index, batch.num_jobs + 2, state.job)
        written = jnp.where(active, index, num_agents + jnp.arange(self.batch))

        def put(stacked: jax.Array, values: jax.Array) -> jax.Array:
            return stacked.at[written].set(values, mode="drop", unique_indices=True)

        new = Clock(
            state.key, state.job, batch.finish, put(state.start, batch.ended), put(batch.following, after),
            put(state.turn, batch.num_jobs + 1), time,
        )  # fmt: skip
        start, finish = (jnp.where(active, x, time) for x in (batch.began, batch.ended))
        weight = jnp.ones(self.batch, jnp.float32)
        return new, Cohort(index, active, weight, None, time, batch.num_jobs, start, finish)

    def _close(self, batch: Arrivals, last: jax.Array, due: Any) -> jax.Array:
        """f[]: when a batch that did not fill up closes [s]."""
        if self.deadline is None:
            return last
        return jnp.where(jnp.min(batch.finish[-1]) > due, due, last)


def _tree_of(times: jax.Array) -> tuple[jax.Array, ...]:
    """The tree above f[N]: levels f[., BRANCHES], the last with one node; infinity where there is nobody."""
    levels = []
    while not levels or times.shape[0] > 1:
        missing = -times.shape[0] % BRANCHES
        levels.append(jnp.pad(times, (0, missing), constant_values=jnp.inf).reshape(-1, BRANCHES))
        times = levels[-1].min(1)
    return tuple(levels)


def _descend(levels: tuple[jax.Array, ...]) -> tuple[jax.Array, list]:
    """The smallest leaf, the first one of equals, and the way to it: (node, branch, time, what the node holds)."""
    index, path = jnp.int32(0), []
    branches = jnp.arange(BRANCHES, dtype=jnp.int32)
    for level in reversed(levels):
        # Read once: what is read again after it was written makes the compiler copy the whole level.
        row = jax.lax.optimization_barrier(jax.lax.dynamic_index_in_dim(level, index, keepdims=False))
        least = row.min()
        branch = jnp.min(jnp.where(row == least, branches, BRANCHES - 1))  # argmin, three times as fast
        path.insert(0, (index, branch, least, row))
        index = index * BRANCHES + branch
    return index, path


def _replace(levels: tuple[jax.Array, ...], path: list, time: jax.Array) -> tuple[jax.Array, ...]:
    """The tree with another time at the leaf that the path leads to."""
    new = []
    for level, (index, branch, _, row) in zip(levels, path, strict=True):
        row = row.at[branch].set(time)
        new.append(jax.lax.dynamic_update_index_in_dim(level, row, index, 0))
        time = row.min()
    return tuple(new)


def pad(index: jax.Array, active: jax.Array) -> jax.Array:
    """i32[B]: the ids where active, distinct other ids elsewhere, in O(B).

    Among the ids 0 ... B - 1 there are at least as many unused ones as slots to pad.
    """
    size = index.shape[0]
    used = jnp.zeros(size, bool).at[jnp.where(active, index, size)].set(True, mode="drop")
    unused = jnp.argsort(used)  # stable: the unused ids come first
    slot = jnp.cumsum(~active) - 1
    return jnp.where(active, index, unused[slot]).astype(jnp.int32)


def first_arrivals(system: System, batch: int = 1, deadline: float | None = None) -> Participation:
    """The next `batch` agents whose jobs end, in the order of their arrival: the event clock of asynchronous training.

    Every agent works all the time. The one whose job ends first arrives, and its next job begins at its arrival; of
    arrivals at the same time the smaller id comes first. How long a job takes follows from the seed, the agent and the
    number of its job, so the order of the arrivals does not depend on `batch`.

    A batch never holds an agent twice: it closes before an agent that is in it would return, and its last slots stay
    empty. With `topologies.sequential`, a batch is then exactly as many arrivals as it holds, one after the other; it
    only lets them be computed together. Where messages are averaged instead, the batch is what is averaged.

    An arrival costs a search among 32 numbers per level of a tree, which has two levels for 1000 agents and four for a
    million; nothing of size N is copied or sorted. Times are sums in
    the default floating type: float32 resolves 6e-8 of the time elapsed.

    Args:
        system: how long jobs take.
        batch: B, slots per round, at most the number of agents.
        deadline: the batch also closes when so much time has passed since the last one closed, even when it is empty
            (elastic synchronisation) [s]; None: never.
    """
    check_system(system)
    check_count("batch", batch)
    if deadline is not None:
        check_range("deadline", deadline, 0, math.inf, open_low=True, remedy="use None for none")
    return FirstArrivals(system, deadline, batch)

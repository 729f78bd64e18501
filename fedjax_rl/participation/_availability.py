"""Agents that come and go, or never come."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..core import Cohort, Job, Participation, check, check_range, component, static
from ._timed import Wrapper, check_rule


class Presence(NamedTuple):
    up: jax.Array  # bool[N] when last looked at
    looked: jax.Array  # i32[N] round of that
    num_rounds: jax.Array  # i32[]


@component
class Availability(Wrapper):
    """Agents that come and go; build it with `availability`."""

    up: Any
    down: Any

    def init_own(self, key: jax.Array, num_agents: int, job: Job) -> Presence:
        up = jax.random.uniform(key, (num_agents,)) < self.up / (self.up + self.down)
        return Presence(up, jnp.zeros(num_agents, jnp.int32), jnp.int32(0))

    def change(self, key: jax.Array, own: Presence, cohort: Cohort) -> tuple[Presence, Cohort]:
        ids = cohort.ids()
        looked, was_up = cohort.take(own.looked), cohort.take(own.up)
        # The chain's law after k rounds is known, so an agent's state is drawn when it is asked for: O(M), exactly.
        elapsed = own.num_rounds - looked
        stays = 1 - self.up - self.down
        memory = jnp.abs(stays) ** elapsed * jnp.where((stays < 0) & (elapsed % 2 == 1), -1, 1)
        share = self.up / (self.up + self.down)
        chance = share + (was_up - share) * memory
        u = jax.vmap(lambda agent: jax.random.uniform(jax.random.fold_in(key, agent)))(ids)
        up = u < chance
        own = Presence(
            cohort.put(own.up, up),
            # The present round; where it is written after it was read, the compiler need not copy all N of them.
            cohort.put(own.looked, jnp.maximum(looked, own.num_rounds)),
            own.num_rounds + 1,
        )
        return own, cohort._replace(active=cohort.active & up)


@component
class OptOut(Wrapper):
    """Some agents never act; build it with `opt_out`."""

    agents: tuple[int, ...] = static()

    def check(self, num_agents: int, job: Job) -> None:
        self.rule.check(num_agents, job)
        if self.agents and max(self.agents) >= num_agents:
            raise ValueError(f"agents must be ids below num_agents = {num_agents}, got {max(self.agents)}")
        if len(self.agents) == num_agents:
            raise ValueError(f"agents must leave somebody who acts, got all {num_agents}")

    def init_own(self, key: jax.Array, num_agents: int, job: Job) -> jax.Array:
        out = np.zeros(num_agents, bool)
        out[list(self.agents)] = True
        return jnp.asarray(out)

    def change(self, key: jax.Array, own: jax.Array, cohort: Cohort) -> tuple[jax.Array, Cohort]:
        return own, cohort._replace(active=cohort.active & ~cohort.take(own))


def availability(rule: Participation, up: float, down: float) -> Participation:
    """Agents come and go: a two-state Markov chain of each agent, one step per round; who is away does not act.

    P(available) = up / (up + down) in the long run, where the chains start; 1 / down rounds is a visit's mean length.
    Only the agents of the cohort are looked at.

    Args:
        rule: who would act.
        up: probability in (0, 1] that an agent who is away comes back.
        down: probability in [0, 1] that one who is there goes away; up + down = 1 is independence between rounds.

    Reference: Gilbert, "Capacity of a burst-noise channel", 1960 (the chain).
    """
    check_rule("availability", rule)
    check_range("up", up, 0, 1, open_low=True)
    check_range("down", down, 0, 1)
    return Availability(rule, up, down)


def opt_out(rule: Participation, agents: Sequence[int]) -> Participation:
    """Agents that never act: they refuse, or are kept apart to be compared with.

    Args:
        rule: who would act.
        agents: their ids.
    """
    check_rule("opt_out", rule)
    check("agents", agents, lambda v: all(int(i) == i and i >= 0 for i in v), "must be a tuple of ids >= 0")
    return OptOut(rule, tuple(sorted({int(i) for i in agents})))

"""Rules around a rule, and the virtual time of synchronous rounds."""

import abc
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core import Cohort, Job, Participation, check_range, component
from ._clocked import Clocked
from ._system import System, arrays, check_system


class Around(NamedTuple):
    """The state of a rule, and what the rule around it remembers."""

    inner: Any
    own: Any


@component
class Wrapper(Participation):
    """A rule around a rule: passes everything on; its state is an `Around`."""

    rule: Participation

    @property
    def depth(self) -> int:
        """How many rules there are inside; the random numbers of two wrappers differ by it."""
        return 1 + getattr(self.rule, "depth", 0)

    @property
    def needs_job(self) -> bool:
        return self.rule.needs_job

    @property
    def observes(self) -> bool:
        return self.rule.observes

    def check(self, num_agents: int, job: Job) -> None:
        self.rule.check(num_agents, job)

    def init(self, key: jax.Array, num_agents: int, job: Job) -> Around:
        own = self.init_own(jax.random.fold_in(key, self.depth), num_agents, job)
        return Around(self.rule.init(key, num_agents, job), own)

    def init_own(self, key: jax.Array, num_agents: int, job: Job) -> Any:
        """What it remembers itself."""
        del key, num_agents, job
        return ()

    def sample(self, key: jax.Array, state: Around, num_agents: int) -> tuple[Around, Cohort]:
        inner, cohort = self.rule.sample(key, state.inner, num_agents)
        own, cohort = self.change(jax.random.fold_in(key, self.depth), state.own, cohort)
        return Around(inner, own), cohort

    @abc.abstractmethod
    def change(self, key: jax.Array, own: Any, cohort: Cohort) -> tuple[Any, Cohort]:
        """What it makes of the rule's cohort."""

    def observe(self, state: Around, cohort: Cohort, metrics: Any) -> Around:
        return state._replace(inner=self.rule.observe(state.inner, cohort, metrics))

    def report(self, before: Around, after: Around) -> Any:
        return self.rule.report(before.inner, after.inner)


def check_rule(name: str, rule: Any) -> None:
    """Raises `ValueError` unless a wrapper of that name may change whom the rule chooses and what they do."""
    if not isinstance(rule, Participation):
        raise ValueError(f"rule must be a rule of participation, got {rule!r}; for example everyone()")
    if rule.keeps_time:
        raise ValueError(
            f"rule must not keep time already with {name}, got {type(rule).__name__}, whose clock would not know of "
            f"the change; put timed(...) around {name}(...)"
        )


class Watch(NamedTuple):
    key: jax.Array  # of the system's randomness
    job: Job
    num_rounds: jax.Array  # i32[]
    time: jax.Array  # f[] [s]


@component
class Timed(Clocked, Wrapper):
    """A rule whose rounds take time; build it with `timed`."""

    system: System
    deadline: Any

    @property
    def complete(self) -> bool:
        return self.rule.complete and self.deadline is None

    def check(self, num_agents: int, job: Job) -> None:
        self.rule.check(num_agents, job)
        super().check(num_agents, job)
        if self.deadline is not None:
            self.system.check_deadline(num_agents, job, self.deadline)

    def init_own(self, key: jax.Array, num_agents: int, job: Job) -> Watch:
        return Watch(key, arrays(job), jnp.int32(0), jnp.zeros((), float))

    def change(self, key: jax.Array, own: Watch, cohort: Cohort) -> tuple[Watch, Cohort]:
        watch, agents = own, cohort.ids()
        turn = jnp.full_like(agents, watch.num_rounds) if cohort.turn is None else cohort.turn
        seconds = self.system.seconds(watch.key, agents, turn, watch.job, cohort.work)
        start = jnp.full_like(seconds, watch.time)
        if self.deadline is not None:
            late = seconds > self.deadline
            cohort = cohort._replace(active=cohort.active & ~late, late=cohort.active & late)
            seconds = jnp.minimum(seconds, self.deadline)
        begins = cohort.active if cohort.late is None else cohort.active | cohort.late
        time = watch.time + jnp.max(jnp.where(begins, seconds, 0)).astype(watch.time.dtype)
        cohort = cohort._replace(time=time, start=start, finish=start + seconds)
        return watch._replace(num_rounds=watch.num_rounds + 1, time=time), cohort


def timed(rule: Participation, system: System, deadline: float | None = None) -> Participation:
    """Synchronous rounds in virtual time: a round takes as long as the slowest agent that acts in it.

    An agent that does fewer local steps is ready earlier. A round in which nobody acts takes no time.

    Args:
        rule: who acts; its own time is not used.
        system: how long jobs take.
        deadline: a round lasts at most so long, and who is not ready by then drops out of it in the middle: nothing of
            that agent arrives, and it stays as it was before the round (metric `agents_dropped`) [s]; None: everybody
            is waited for.

    Raises:
        ValueError: a value is wrong, or the rule has a clock of its own; by `make_round`: nobody meets the deadline.
    """
    check_rule("timed", rule)
    check_system(system)
    if deadline is not None:
        check_range("deadline", deadline, 0, math.inf, open_low=True, remedy="use None for none")
    return Timed(rule, system, deadline)

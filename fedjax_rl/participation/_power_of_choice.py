"""Selection and rest by what agents have reported."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core import Cohort, Job, Mean, Metrics, Participation, as_metric, check_count, check_range, component, static
from ._timed import Around, Wrapper, check_rule
from ._uniform_cohort import sample_distinct


# What is chosen by, the metric that says it, and its sign: the largest come first.
_SCORES = {"loss": ("value_loss", 1.0), "return": ("train_return_mean", -1.0)}


class Scores(NamedTuple):
    score: jax.Array  # f32[N] the last one reported; infinity: none yet
    time: jax.Array  # f32[]


@component
class PowerOfChoice(Participation):
    """The worst of some candidates; build it with `power_of_choice`."""

    size: int = static()
    candidates: int = static()
    by: str = static()

    def check(self, num_agents: int, job: Job) -> None:
        if self.candidates > num_agents:
            raise ValueError(f"candidates must not exceed num_agents = {num_agents}, got {self.candidates}")

    def init(self, key: jax.Array, num_agents: int, job: Job) -> Scores:
        return Scores(jnp.full(num_agents, jnp.inf, jnp.float32), jnp.float32(0))

    def sample(self, key: jax.Array, state: Scores, num_agents: int) -> tuple[Scores, Cohort]:
        some = sample_distinct(key, num_agents, self.candidates)
        index = some[jax.lax.top_k(state.score[some], self.size)[1]]
        time = state.time + 1
        ones = jnp.ones(self.size, bool)
        return state._replace(time=time), Cohort(index, ones, ones.astype(jnp.float32), None, time)

    def observe(self, state: Scores, cohort: Cohort, metrics: Metrics) -> Scores:
        name, sign = _SCORES.get(self.by, (self.by, 1.0))
        value, known = _reported(metrics, name)
        index = cohort.ids()
        score = jnp.where(known & cohort.active, sign * value, state.score[index])
        return state._replace(score=state.score.at[index].set(score, unique_indices=True))


def _reported(metrics: Metrics, name: str) -> tuple[jax.Array, jax.Array]:
    """f32[M] what each agent reports under a name, and bool[M] whether it does."""
    if name not in metrics:
        raise ValueError(f"by must name a metric that the agents report, got {name!r}; there are {sorted(metrics)}")
    metric = as_metric(metrics[name])
    if not isinstance(metric, Mean):
        return metric[0].astype(jnp.float32), jnp.ones(metric[0].shape, bool)
    known = metric.count > 0
    return (metric.total / jnp.where(known, metric.count, 1)).astype(jnp.float32), known


def power_of_choice(size: int, candidates: int, by: str = "loss") -> Participation:
    """Of d agents drawn uniformly the M act whose last report was worst; agents that never reported come first.

    The original asks the candidates for their loss under the present model; here, as in its cheap variant, the last
    report of each counts, so nothing is sent for the selection. The cost of a round follows d, not N.

    Args:
        size: M <= d.
        candidates: d, at most the number of agents; d = M is a uniform cohort.
        by: "loss" (the largest `value_loss` first), "return" (the smallest `train_return_mean` first), or the name of
            a metric of the agents (the largest first).

    Reference: Cho, Wang and Joshi, "Towards understanding biased client selection in federated learning", AISTATS 2022.
    """
    check_count("size", size)
    check_count("candidates", candidates, size, remedy="the cohort is chosen among the candidates")
    if not isinstance(by, str):
        raise ValueError(f"by must be a name, got {by!r}")
    return PowerOfChoice(size, candidates, by)


class Progress(NamedTuple):
    reference: jax.Array  # f32[N] the return to improve on
    rests_until: jax.Array  # i32[N] round
    num_rounds: jax.Array  # i32[]


@component
class PerformanceTriggered(Wrapper):
    """Agents that make no progress rest; build it with `performance_triggered`."""

    improvement: Any
    patience: Any
    by: str = static()

    @property
    def observes(self) -> bool:
        return True

    def init_own(self, key: jax.Array, num_agents: int, job: Job) -> Progress:
        none = jnp.full(num_agents, -jnp.inf, jnp.float32)
        return Progress(none, jnp.zeros(num_agents, jnp.int32), jnp.int32(0))

    def change(self, key: jax.Array, own: Progress, cohort: Cohort) -> tuple[Progress, Cohort]:
        awake = cohort.take(own.rests_until) <= own.num_rounds
        own = own._replace(num_rounds=own.num_rounds + 1)
        return own, cohort._replace(active=cohort.active & awake)

    def observe(self, state: Around, cohort: Cohort, metrics: Metrics) -> Around:
        value, known = _reported(metrics, _SCORES.get(self.by, (self.by, 1.0))[0])
        own, known = state.own, known & cohort.active
        before = cohort.take(own.reference)
        improved = value >= before + self.improvement
        rest = jnp.where(known & ~improved, own.num_rounds + self.patience, cohort.take(own.rests_until))
        own = own._replace(
            reference=cohort.put(own.reference, jnp.where(known & improved, value, before)),
            rests_until=cohort.put(own.rests_until, rest.astype(jnp.int32)),
        )
        return Around(self.rule.observe(state.inner, cohort, metrics), own)


def performance_triggered(
    rule: Participation, improvement: float, patience: int = 10, by: str = "return"
) -> Participation:
    """An agent goes on taking part while its own return improves; else it rests for some rounds before it tries again.

    An agent's return is seen only when it acts. One whose report exceeds its reference by `improvement` makes that
    report its reference and takes part again; one whose report does not sits out the next `patience` rounds. Small
    improvements add up, because the reference stays. The first report always counts as an improvement.

    Args:
        rule: who would act.
        improvement: of the return, >= 0.
        patience: rounds of rest, >= 1.
        by: "return" (`train_return_mean`), or the name of a metric of the agents that should grow.
    """
    check_rule("performance_triggered", rule)
    check_range("improvement", improvement, 0, math.inf, open_high=True)
    check_count("patience", patience)
    if not isinstance(by, str):
        raise ValueError(f"by must be a name, got {by!r}")
    return PerformanceTriggered(rule, improvement, patience, by)

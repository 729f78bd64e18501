"""Who worked when, for a picture."""

from typing import NamedTuple

import jax
import numpy as np

from ..core import Cohort, Round, RoundState, check_count


class Timeline(NamedTuple):
    """The jobs of a run in the order of their rounds and slots."""

    agent: np.ndarray  # i32[J]
    start: np.ndarray  # f[J] [s]
    finish: np.ndarray  # f[J] [s]
    round: np.ndarray  # i32[J] in which the job ended
    late: np.ndarray  # bool[J] cut off by a deadline: nothing of it arrived
    close: np.ndarray  # f[R] when each round closed [s]


def timeline(round_: Round, num_rounds: int, key: jax.Array, cohorts: Cohort | None = None) -> Timeline:
    """The jobs of the first rounds of a run, without doing the work.

    Args:
        round_: the round.
        num_rounds: how many rounds.
        key: of the run, `jax.random.key(seed)`.
        cohorts: recorded ones, leaves [num_rounds, ...], where who acts depends on what happened before: collect
            `round_.next_cohort(state)[1]` before every step and stack them.

    Returns:
        One entry per job that ended in these rounds. Where a rule does not tell when jobs began and ended, they last
        from one closing time to the next.

    Raises:
        ValueError: the rule observes what agents report, and no cohorts are given; or nobody acts in these rounds.
    """
    check_count("num_rounds", num_rounds)
    if cohorts is None:
        if round_.participation.observes:
            raise ValueError(
                f"cohorts must be given with {type(round_.participation).__name__}, which looks at what agents report; "
                "record round_.next_cohort(state)[1] before every step"
            )

        def advance(state: RoundState, _: None) -> tuple[RoundState, Cohort]:
            who, cohort = round_.next_cohort(state)
            return state._replace(who=who, round=state.round + 1), cohort._replace(index=cohort.ids())

        cohorts = jax.lax.scan(advance, round_.init(key), length=num_rounds)[1]
    if cohorts.time.shape != (num_rounds,):
        raise ValueError(f"cohorts must have leaves [{num_rounds}, ...], got times of shape {cohorts.time.shape}")
    time, active = np.asarray(cohorts.time), np.asarray(cohorts.active)
    late = np.zeros_like(active) if cohorts.late is None else np.asarray(cohorts.late)
    size = active.shape[1]
    agent = np.tile(np.arange(size), (num_rounds, 1)) if cohorts.index is None else np.asarray(cohorts.index)
    closes = np.repeat(time[:, None], size, 1)
    opens = np.concatenate([np.zeros_like(closes[:1]), closes[:-1]])
    start = opens if cohorts.start is None else np.asarray(cohorts.start)
    finish = closes if cohorts.finish is None else np.asarray(cohorts.finish)
    rounds = np.repeat(np.arange(num_rounds, dtype=np.int32)[:, None], size, 1)
    began = active | late
    if not began.any():
        raise ValueError(f"num_rounds must reach a round in which somebody acts, got {num_rounds}; nobody did")
    agent, start, finish, rounds, late = (x[began] for x in (agent.astype(np.int32), start, finish, rounds, late))
    return Timeline(agent, start, finish, rounds, late, time)

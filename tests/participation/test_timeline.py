"""Replayed jobs are those of the run."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import aggregators, make_round, participation, run
from fedjax_rl.core import Job
from tests.oracles.event_clock import EventClock
from tests.probes.quadratic import Descent, Targets


SECONDS = [1.0, 1.75, 2.5, 4.25]


def round_of(rule):
    return make_round(Targets(jnp.ones((4, 3))), Descent(0.5), aggregators.mean(), num_agents=4, participation=rule)


def test_asynchronous_jobs_are_the_events():
    rule = participation.first_arrivals(participation.fixed_system(SECONDS), 3)
    found = participation.timeline(round_of(rule), 12, jax.random.key(0))
    events = list(itertools.islice(EventClock(4, lambda i, u: SECONDS[i]).arrivals(), len(found.agent)))
    assert len(events) > 15
    np.testing.assert_array_equal(found.agent, [i for _, i, _, _ in events])
    np.testing.assert_array_equal(found.finish, [t for t, _, _, _ in events])
    np.testing.assert_array_equal(found.start, [began for _, _, _, began in events])


def test_synchronous_jobs_are_those_of_the_run():
    rule = participation.timed(participation.uniform_cohort(2), participation.fixed_system(SECONDS, jitter=0.3))
    round_ = round_of(rule)
    found = participation.timeline(round_, 6, jax.random.key(3))
    _, history = run(round_, round_.init(jax.random.key(3)), 6)
    latest = [found.finish[found.round == r].max() for r in range(6)]
    np.testing.assert_allclose(latest, history["virtual_time"], rtol=1e-6)
    np.testing.assert_allclose(found.start[found.round == 4], history["virtual_time"][3], rtol=1e-6)


def test_a_rule_that_does_not_tell_works_from_close_to_close():
    found = participation.timeline(round_of(None), 2, jax.random.key(0))
    assert found.agent.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert found.start.tolist() == [0] * 4 + [1] * 4
    assert found.finish.tolist() == [1] * 4 + [2] * 4


def test_jobs_cut_off_by_a_deadline_are_seen():
    rule = participation.timed(participation.everyone(), participation.fixed_system(SECONDS), deadline=2.0)
    found = participation.timeline(round_of(rule), 2, jax.random.key(0))
    assert found.late.tolist() == [False, False, True, True] * 2
    assert found.finish.tolist() == [1.0, 1.75, 2.0, 2.0, 3.0, 3.75, 4.0, 4.0]
    assert found.close.tolist() == [2.0, 4.0]


def test_nobody_to_draw():
    rule = participation.timed(
        participation.availability(participation.everyone(), 1e-9, 1.0), participation.fixed_system(SECONDS)
    )
    with pytest.raises(ValueError, match="num_rounds must reach a round in which somebody acts, got 3"):
        participation.timeline(round_of(rule), 3, jax.random.key(0))


def test_rules_that_observe_need_a_record():
    rule = participation.timed(participation.power_of_choice(1, 4, "distance"), participation.fixed_system(SECONDS))
    round_ = round_of(rule)
    with pytest.raises(ValueError, match="cohorts must be given with Timed"):
        participation.timeline(round_, 4, jax.random.key(0))
    state, record = round_.init(jax.random.key(0)), []
    for _ in range(4):
        record.append(round_.next_cohort(state)[1])
        state = round_.step(state)[0]
    cohorts = jax.tree.map(lambda *x: jnp.stack(x), *record)
    found = participation.timeline(round_, 4, jax.random.key(0), cohorts)
    assert sorted(found.agent.tolist()) == [0, 1, 2, 3]
    np.testing.assert_allclose(found.finish - found.start, np.asarray(SECONDS)[found.agent])
    with pytest.raises(ValueError, match=r"cohorts must have leaves \[5"):
        participation.timeline(round_, 5, jax.random.key(0), cohorts)


def test_the_clock_is_known_before_the_work():
    job = Job(1.0, 1.0, 1, 1.0, 1.0)
    rule = participation.first_arrivals(participation.fixed_system(SECONDS), 2)
    state = rule.init(jax.random.key(0), 4, job)
    assert rule.sample(jax.random.key(5), state, 4)[1].index.tolist() == [0, 1]

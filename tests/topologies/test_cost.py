"""A round costs what its cohort costs: nothing of size N is made anew."""

import jax
import jax.numpy as jnp
import pytest

from fedjax_rl import aggregators, make_round, participation, topologies
from fedjax_rl.core import compiler_options
from tests.hlo import made_anew
from tests.probes.quadratic import Descent, Targets


NUM_AGENTS, ROUNDS = 4099, 13
SNAPSHOT = topologies.sequential(topologies.snapshot(topologies.star()))
TOPOLOGIES = {
    "star": topologies.star(),
    "averaged": topologies.snapshot(topologies.star()),
    "one by one": SNAPSHOT,
    "fedbuff": topologies.sequential(
        topologies.snapshot(topologies.buffered(topologies.star(), 10), topologies.polynomial())
    ),
    "asynchronous": topologies.sequential(topologies.asynchronous(topologies.star(), 9)),
    "failover": topologies.failover(SNAPSHOT, 0.1),
    "periodic": topologies.periodic(topologies.star(), 5),
    "isolated": topologies.isolated(),
}
SOME = participation.uniform_cohort(64)
RULES = {
    "availability": participation.availability(SOME, 0.5, 0.5),
    "opt_out": participation.opt_out(SOME, (0, 3)),
    "performance_triggered": participation.performance_triggered(SOME, 0.1, by="distance"),
    "power_of_choice": participation.power_of_choice(64, 128, by="distance"),
}


def compiled(topology, rule=SOME, keep_old=False):
    """The text of a program that runs rounds with a donated state and returns all metrics."""
    round_ = make_round(
        Targets(jnp.zeros((NUM_AGENTS, 1))), Descent(0.1, 0.1, num_parameters=50), aggregators.mean(),
        num_agents=NUM_AGENTS, topology=topology, participation=rule,
    )  # fmt: skip

    def rounds(round_, state):
        def step(state, _):
            after, metrics = round_.step(state)
            return after, (metrics, state.places.own.version.sum()) if keep_old else metrics

        return jax.lax.scan(step, state, length=ROUNDS)

    state = jax.eval_shape(round_.init, jax.random.key(0))
    jitted = jax.jit(rounds, donate_argnums=1, compiler_options=compiler_options("cpu"))
    return jitted.lower(round_, state).compile().as_text()


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_a_round_writes_in_place(name):
    bad, writes = made_anew(compiled(TOPOLOGIES[name]), ROUNDS, NUM_AGENTS)
    assert not bad
    assert writes >= 2  # the local states, at least


@pytest.mark.parametrize("name", RULES)
def test_a_rule_writes_in_place(name):
    bad, writes = made_anew(compiled(topologies.star(), RULES[name]), ROUNDS, NUM_AGENTS)
    assert not bad
    assert writes >= 2


def test_a_copy_would_be_seen():
    assert made_anew(compiled(SNAPSHOT, keep_old=True), ROUNDS, NUM_AGENTS)[0]

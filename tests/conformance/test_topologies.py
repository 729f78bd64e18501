"""What every topology owes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import aggregators, make_round, run
from tests.conformance.examples import TOPOLOGIES, every, label
from tests.probes.quadratic import Descent, Targets


NUM_AGENTS = 6
TOPOLOGY = pytest.mark.parametrize("topology", every(TOPOLOGIES), ids=label)


@TOPOLOGY
@pytest.mark.parametrize("aggregator", [aggregators.mean(), aggregators.median()], ids=label)
def test_equal_models_stay_equal(topology, aggregator):
    same = jnp.broadcast_to(jnp.arange(3.0), (NUM_AGENTS, 3))
    round_ = make_round(Targets(same), Descent(0.5), aggregator, num_agents=NUM_AGENTS, topology=topology)
    state, _ = run(round_, round_.init(jax.random.key(0)), 5)
    models = round_.policies(state, jnp.arange(NUM_AGENTS))
    np.testing.assert_allclose(models, np.broadcast_to((1 - 2.0**-5) * np.arange(3.0), (NUM_AGENTS, 3)), rtol=1e-6)


@TOPOLOGY
def test_one_compilation_and_a_fixed_point(topology):
    targets = jax.random.normal(jax.random.key(0), (NUM_AGENTS, 3))
    round_ = make_round(Targets(targets), Descent(0.5), aggregators.mean(), num_agents=NUM_AGENTS, topology=topology)
    traces = []

    @jax.jit
    def step(state):
        traces.append(1)
        return round_.step(state)[0]

    state = round_.init(jax.random.key(0))
    for _ in range(10):
        state = step(state)
    assert len(traces) == 1


@TOPOLOGY
def test_jit_equals_eager(topology):
    targets = jax.random.normal(jax.random.key(0), (NUM_AGENTS, 3))
    round_ = make_round(
        Targets(targets), Descent(0.5, 0.3), aggregators.mean(), num_agents=NUM_AGENTS, topology=topology
    )
    state = round_.init(jax.random.key(0))
    eager, jitted = round_.step(state), jax.jit(round_.step)(state)
    for x, y in zip(jax.tree.leaves(eager[0].places), jax.tree.leaves(jitted[0].places), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)

"""What every topology owes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import aggregators, make_mesh, make_round, run
from tests.conformance.examples import TOPOLOGIES, every, label
from tests.probes.arrivals import arrivals
from tests.probes.quadratic import Descent, Targets


NUM_AGENTS = 6
TOPOLOGY = pytest.mark.parametrize("topology", every(TOPOLOGIES), ids=label)


@TOPOLOGY
@pytest.mark.parametrize("aggregator", [aggregators.mean(), aggregators.median()], ids=label)
def test_equal_models_stay_equal(topology, aggregator):
    same = jnp.broadcast_to(jnp.arange(3.0), (NUM_AGENTS, 3))
    round_ = make_round(Targets(same), Descent(0.5), aggregator, num_agents=NUM_AGENTS, topology=topology)
    state, _ = run(round_, round_.init(jax.random.key(0)), 5)
    models = np.asarray(round_.policies(state, jnp.arange(NUM_AGENTS)))
    np.testing.assert_allclose(models, np.broadcast_to(models[0], models.shape), rtol=1e-6)
    np.testing.assert_allclose(models[0], models[0, 1] * np.arange(3.0), rtol=1e-6)  # they only know one direction
    if topology.synchronous:
        np.testing.assert_allclose(models[0], (1 - 2.0**-5) * np.arange(3.0), rtol=1e-6)


@TOPOLOGY
def test_rounds_tell_how_old_models_were_and_what_got_lost(topology):
    targets = jax.random.normal(jax.random.key(0), (NUM_AGENTS, 3))
    rule = arrivals([0, 1, 2, 0, 3, 0, 4, 5, 1, 0], 2, NUM_AGENTS)
    round_ = make_round(
        Targets(targets), Descent(0.1), aggregators.mean(), num_agents=NUM_AGENTS, topology=topology,
        participation=rule,
    )  # fmt: skip
    _, history = run(round_, round_.init(jax.random.key(0)), rule.num_rounds)
    assert ("staleness_max" in history) == ("staleness_mean" in history) == topology.stale
    if topology.stale:
        assert (history["staleness_max"] >= 0).all()
    assert (history["messages_lost"] == 0).all() or not topology.delivers
    np.testing.assert_array_equal(
        history["messages_delivered"] + history["messages_lost"], history["agent_updates"]
    )  # fmt: skip
    assert np.isfinite(history["distance"]).all()


@TOPOLOGY
def test_works_under_vmap_over_seeds(topology):
    targets = jax.random.normal(jax.random.key(0), (NUM_AGENTS, 3))
    round_ = make_round(
        Targets(targets), Descent(0.1, 0.3), aggregators.mean(), num_agents=NUM_AGENTS, topology=topology
    )  # fmt: skip
    states = [round_.init(jax.random.key(seed)) for seed in range(2)]
    together = jax.tree.map(lambda *x: jnp.stack(x), *states)
    step, steps = jax.jit(round_.step), jax.jit(jax.vmap(round_.step))
    for _ in range(2):
        states, together = [step(s)[0] for s in states], steps(together)[0]
    for i, alone in enumerate(states):
        for x, y in zip(jax.tree.leaves(alone.places), jax.tree.leaves(together.places), strict=True):
            np.testing.assert_allclose(x, y[i], rtol=1e-5, atol=1e-6)


@TOPOLOGY
@pytest.mark.parametrize("aggregator", [aggregators.mean(), aggregators.median()], ids=label)
def test_devices_that_do_not_divide_the_agents_change_nothing(topology, aggregator):
    targets = jax.random.normal(jax.random.key(0), (NUM_AGENTS, 3))
    found = []
    for mesh in (None, make_mesh(4)):
        round_ = make_round(
            Targets(targets), Descent(0.3, 0.3), aggregator, num_agents=NUM_AGENTS, topology=topology, mesh=mesh
        )
        state, history = run(round_, round_.init(jax.random.key(0)), 5)
        models = round_.policies(state, jnp.arange(NUM_AGENTS))
        found.append((models, round_.without_padding(state).local, history))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), *found)


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
    with jax.disable_jit():
        eager = round_.step(state)
    jitted = round_.step(state)
    for x, y in zip(jax.tree.leaves(eager[0].places), jax.tree.leaves(jitted[0].places), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)

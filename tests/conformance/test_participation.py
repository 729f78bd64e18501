"""What every participation rule owes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import aggregators, make_mesh, make_round, run
from fedjax_rl.core import Job, Mean, component, tree
from tests.conformance.examples import PARTICIPATION, every, label
from tests.probes.quadratic import Descent, Targets


NUM_AGENTS = 8
JOB = Job(env_steps=800.0, gradients=4.0, num_local_steps=4, uplink_bits=1e5, downlink_bits=1e5)
PARTICIPATE = pytest.mark.parametrize("rule", every(PARTICIPATION), ids=label)


@PARTICIPATE
def test_ids_are_distinct_and_in_range_and_time_never_falls(rule):
    state, times = rule.init(jax.random.key(0), NUM_AGENTS, JOB), []
    for i in range(20):
        state, cohort = rule.sample(jax.random.key(i), state, NUM_AGENTS)
        ids = np.asarray(cohort.ids())
        assert len(set(ids.tolist())) == len(ids) == cohort.active.shape[0]
        assert ids.min() >= 0
        assert ids.max() < NUM_AGENTS
        assert bool(jnp.all(cohort.weight >= 0))
        times.append(float(cohort.time))
    assert times == sorted(times)


def same(x, y):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x, y = jax.random.key_data(x), jax.random.key_data(y)
    np.testing.assert_array_equal(x, y)


@PARTICIPATE
def test_jit_equals_eager_with_one_compilation_and_a_fixed_point(rule):
    traces = []

    def sample(key, state):
        traces.append(1)
        return rule.sample(key, state, NUM_AGENTS)

    jitted = jax.jit(sample)
    state = rule.init(jax.random.key(0), NUM_AGENTS, JOB)
    for i in range(10):
        expected = rule.sample(jax.random.key(i), state, NUM_AGENTS)
        out = jitted(jax.random.key(i), state)
        jax.tree.map(same, out, expected)
        state = out[0]
    assert len(traces) == 1


@PARTICIPATE
def test_works_under_vmap_over_seeds(rule):
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    states = jax.vmap(lambda k: rule.init(k, NUM_AGENTS, JOB))(keys)
    _, cohorts = jax.vmap(lambda k, s: rule.sample(k, s, NUM_AGENTS))(keys, states)
    for i in range(3):
        _, alone = rule.sample(keys[i], tree.take(states, i), NUM_AGENTS)
        np.testing.assert_array_equal(cohorts.active[i], alone.active)
        if alone.index is not None:
            np.testing.assert_array_equal(cohorts.index[i], alone.index)


@component
class Worker(Descent):
    """What rules may ask about: the work of a round, and the return."""

    def job(self, env):
        return JOB.env_steps, JOB.gradients, JOB.num_local_steps

    def update(self, *args):
        after, envelope, metrics = super().update(*args)
        return after, envelope, metrics | {"train_return_mean": Mean(-metrics["distance"], jnp.float32(1))}


@PARTICIPATE
def test_devices_that_do_not_divide_the_agents_change_nothing(rule):
    targets = jax.random.normal(jax.random.key(0), (NUM_AGENTS, 3))
    found = []
    for mesh in (None, make_mesh(3)):
        round_ = make_round(
            Targets(targets), Worker(0.3, 0.3), aggregators.mean(), num_agents=NUM_AGENTS, participation=rule, mesh=mesh
        )
        state, history = run(round_, round_.init(jax.random.key(0)), 5)
        found.append((state.places.public, round_.without_padding(state).local, state.who, history))
    jax.tree.map(close, *found)


def close(x, y):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x, y = jax.random.key_data(x), jax.random.key_data(y)
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)

"""What every learner owes, whatever its objective and corrections."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.core import Received, as_metric, tree
from tests.conformance.examples import CARTPOLE, CONTINUOUS, LEARNERS, LOGGED, every, has_step_size, merges_plainly
from tests.probes.logged import LoggedObjective


LEARNER = pytest.mark.parametrize("make", every(LEARNERS), ids=lambda m: "")
PLAIN_LEARNER = pytest.mark.parametrize("make", [m for m in every(LEARNERS) if merges_plainly(m)], ids=lambda m: "")

STEPPING_LEARNER = pytest.mark.parametrize("make", [m for m in every(LEARNERS) if has_step_size(m)], ids=lambda m: "")


def family_of(make, learner):
    """The family that the example names, or else one that the learner's policy fits."""
    if hasattr(make, "family"):
        return make.family
    objective = getattr(learner, "objective", None) or learner.learner.objective
    if isinstance(objective, LoggedObjective):
        return LOGGED
    one_number = objective.policy.noise(jax.random.key(0), ()).ndim == 0  # discrete actions need no more
    return CARTPOLE if one_number else CONTINUOUS


def setting(make, learner):
    """The family, one agent's physics, shared and local state."""
    family = family_of(make, learner)
    physics = tree.take(family.sample(jax.random.key(1), 1), 0)
    shared = learner.init_shared(jax.random.key(2), family.env)
    local = tree.strong(learner.init_local(jax.random.key(3), family.env, physics, shared))
    return family.env, physics, tree.strong(shared), local


def update(learner, key, env, physics, shared, local):
    return learner.update(key, env, physics, learner.broadcast(shared), local, None)


def close(x, y, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **({"rtol": 2e-4, "atol": 1e-6} | tolerance)), x, y)


@LEARNER
def test_one_compilation_serves_all_numbers_and_the_state_keeps_its_avals(make):
    env, physics, shared, local = setting(make, make(0.1))
    traces = []

    @jax.jit
    def step(learner, key, shared, local):
        traces.append(1)
        local, envelope, metrics = update(learner, key, env, physics, shared, local)
        received = Received(jnp.float32(1), jnp.int32(1), jnp.float32(1))
        return learner.merge(key, env, shared, envelope.payload, received), local, envelope, metrics

    for i in range(10):
        avals = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), (shared, local))
        shared, local, envelope, metrics = step(make(0.01 * (i + 1)), jax.random.key(i), shared, local)
        shared, local = tree.strong((shared, local))
        assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), (shared, local)) == avals
    assert len(traces) == 1
    assert bool(tree.all_finite((shared, local, envelope.payload)))
    assert all(bool(jnp.isfinite(as_metric(m).total)) for m in metrics.values())


@STEPPING_LEARNER
def test_zero_step_size_gives_the_zero_difference(make):
    learner = make(0.0)
    env, physics, shared, local = setting(make, learner)
    _, envelope, metrics = jax.jit(update, static_argnums=2)(learner, jax.random.key(0), env, physics, shared, local)
    assert float(tree.norm(envelope.payload.params)) == 0.0
    assert float(metrics["drift"].total) == 0.0


@STEPPING_LEARNER
def test_a_zero_message_changes_no_parameter(make):
    learner = make(0.1)
    env, physics, shared, local = setting(make, learner)
    payload = jax.eval_shape(lambda: update(learner, jax.random.key(0), env, physics, shared, local)[1].payload)
    received = Received(jnp.float32(1), jnp.int32(1), jnp.float32(1))
    merged = learner.merge(jax.random.key(0), env, shared, tree.zeros_like(payload), received)
    close(merged.params, shared.params, rtol=0, atol=0)


@PLAIN_LEARNER
def test_the_message_moves_the_model_by_what_was_trained(make):
    # One agent, one message: merging it gives the trained model, so a second look at the difference finds nothing.
    learner = make(0.05)
    env, physics, shared, local = setting(make, learner)
    _, envelope, metrics = jax.jit(update, static_argnums=2)(learner, jax.random.key(0), env, physics, shared, local)
    received = Received(jnp.float32(1), jnp.int32(1), jnp.float32(1))
    merged = learner.merge(jax.random.key(0), env, shared, envelope.payload, received)
    moved = tree.norm(tree.subtract(merged.params, shared.params))
    assert float(moved) > 0
    np.testing.assert_allclose(moved, metrics["drift"].total, rtol=1e-3)


@LEARNER
def test_works_under_vmap_over_seeds(make):
    learner = make(0.1)
    env, physics, shared, local = setting(make, learner)
    keys = jax.vmap(jax.random.key)(jnp.arange(3))

    def one(key):
        return update(learner, key, env, physics, shared, local)[1].payload

    together = jax.jit(jax.vmap(one))(keys)
    alone = jax.jit(one)
    for i in range(3):
        close(tree.take(together, i), alone(keys[i]), rtol=2e-3, atol=1e-5)


def test_jit_equals_eager():
    make = every(LEARNERS)[2]
    learner = make(0.1)
    env, physics, shared, local = setting(make, learner)
    arguments = (jax.random.key(0), env, physics, shared, local)
    eager, jitted = update(learner, *arguments), jax.jit(update, static_argnums=2)(learner, *arguments)
    close(eager[1].payload, jitted[1].payload)
    close(eager[0], jitted[0])

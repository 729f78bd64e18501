"""Corrections that become something simpler where their parameter or the problem is simple, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import envs, learners, policies
from fedjax_rl.learners._correction import Context
from fedjax_rl.learners._natural_gradient import conjugate_gradient
from tests.learners.test_corrections import (
    ACTIONS,
    ETA,
    FEATURES,
    RATE,
    gradient,
    learn,
    play,
)
from tests.learners.test_corrections import make_logs as make_logs
from tests.learners.test_corrections import make_rows as make_rows
from tests.probes.logged import LoggedObjective, Logs


pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(name="fedavg", scope="module")
def train_without_corrections(logs):
    """FedAvg on policy gradients."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    theta = learn(logs, ())[0]
    jax.config.update("jax_enable_x64", before)
    return theta


@pytest.mark.parametrize(
    "correction",
    [learners.svrpg_momentum(1.0), learners.kl_to_global(0.0), learners.importance_weighting(), learners.proximal(0.0)],
    ids=lambda c: type(c).__name__,
)
def test_is_fedavg_on_policy_gradients(logs, fedavg, correction):
    # On fresh data the ratio to the behaviour policy is one.
    np.testing.assert_allclose(learn(logs, (correction,))[0], fedavg, rtol=1e-9)


def test_hapg_without_momentum_begins_as_fedavg(logs):
    # Until the first meeting theta_{-1} = theta_0, and with one step theta_hat = theta_0 whatever a is.
    for beta in (1.0, 0.3):  # and the first step is beta g, since u_0 = 0
        theta = learn(logs, (learners.hapg_momentum(beta),), steps=1, num_rounds=1)[0]
        expected = learn(logs, (), steps=1, num_rounds=1, eta=beta * RATE)[0]
        np.testing.assert_allclose(theta, expected, rtol=1e-9)


@pytest.mark.parametrize("correction", [learners.control_variates(), learners.mime(0.0), learners.mime_lite(0.0)])
def test_one_local_step_is_sgd_on_the_mean_gradient(rows, correction):
    rounds = 6 if isinstance(correction, learners.Mime) else 3
    theta, expected = play(rows, (correction,), steps=1, num_rounds=rounds), rows[1]
    for _ in range(3):
        expected = expected - ETA * np.mean([gradient(rows)(i, expected) for i in range(4)], axis=0)
    np.testing.assert_allclose(theta, expected, rtol=1e-7)


def test_fednova_with_equal_work_is_fedavg(rows):
    np.testing.assert_allclose(play(rows, (learners.normalized_averaging(),)), play(rows, ()), rtol=1e-7)


# ---------------------------------------------------------------- natural gradients


@pytest.mark.parametrize("size", [1, 3, 8])
def test_conjugate_gradient_solves_in_as_many_steps_as_dimensions(size):
    generator = np.random.default_rng(size)
    root = generator.normal(size=(size, size))
    A, b = root @ root.T + np.eye(size), generator.normal(size=size)
    for iterations in (size, size + 20):  # and keeps the solution
        x = conjugate_gradient(lambda v: jnp.asarray(A) @ v, jnp.asarray(b), iterations)
        np.testing.assert_allclose(x, np.linalg.solve(A, b), rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_conjugate_gradient_leaves_alone_what_a_singular_matrix_does_not_see(dtype):
    # A = R^T R of rank 2 in 6 dimensions; b in its range up to rounding, then wholly outside of it.
    R = np.random.default_rng(3).normal(size=(2, 6))
    A = (R.T @ R).astype(dtype)
    b = (A @ np.arange(6)).astype(dtype)
    x = conjugate_gradient(lambda v: jnp.asarray(A) @ v, jnp.asarray(b), 50)
    np.testing.assert_allclose(
        x, np.linalg.pinv(A.astype(np.float64), rcond=1e-4) @ b, rtol=2e-3 if dtype == np.float32 else 1e-8
    )
    outside = np.linalg.svd(R)[2][-1].astype(dtype)
    assert float(jnp.linalg.norm(conjugate_gradient(lambda v: 0 * v, jnp.asarray(outside), 5))) == 0.0
    zero = conjugate_gradient(lambda v: jnp.asarray(A) @ v, jnp.zeros(6, dtype), 5)
    np.testing.assert_array_equal(zero, np.zeros(6))


def one_batch(seed, gaussian):
    """A batch of 8 steps and an objective on it."""
    generator = np.random.default_rng(seed)
    action = generator.normal(size=(8, ACTIONS)) if gaussian else generator.integers(0, ACTIONS, size=8)
    batch = Logs(jnp.asarray(generator.normal(size=(8, FEATURES))), jnp.asarray(action), jnp.ones(8))
    params = {"theta": jnp.asarray(generator.normal(size=(FEATURES, ACTIONS)))}
    return LoggedObjective(np.zeros((FEATURES, ACTIONS)), 8, -0.3 if gaussian else None), batch, params


def context_of(objective, batch, params):
    loss = lambda p, b: objective.loss(jax.random.key(0), p, (), b)[0]  # noqa: E731
    return Context(objective, (), loss, jax.grad(loss), params, params, params, batch, (), ())


def test_a_natural_step_solves_least_squares():
    # A Gaussian policy's log-likelihood is quadratic and F is its Hessian: one step of length one is the solution.
    objective, batch, params = one_batch(0, gaussian=True)
    context = context_of(objective, batch, params)
    correction = learners.natural_gradient(damping=0.0, num_iterations=FEATURES * ACTIONS)
    step, _ = correction.gradient(jax.random.key(0), context.gradient_at(params, batch), context)
    expected = np.linalg.lstsq(np.asarray(batch.observation), np.asarray(batch.action), rcond=None)[0]
    np.testing.assert_allclose(params["theta"] - step["theta"], expected, rtol=1e-7)


@pytest.mark.parametrize("max_kl", [0.001, 0.1, 10.0])
def test_a_trust_region_step_keeps_its_region_and_lowers_the_loss(max_kl):
    objective, batch, params = one_batch(1, gaussian=False)
    batch = batch._replace(score=jnp.asarray(np.random.default_rng(4).normal(size=8)))
    context = context_of(objective, batch, params)

    def surrogate(p, b):
        """-mean(rho A), which TRPO descends."""
        rho = jnp.exp(objective.log_prob(p, b) - objective.log_prob(params, b))
        return -jnp.mean(rho * b.score)

    context = context._replace(loss_at=surrogate, gradient_at=jax.grad(surrogate))
    correction = learners.natural_gradient(max_kl, damping=1e-3, num_backtracks=10)
    slope = context.gradient_at(params, batch)
    step, _ = correction.gradient(jax.random.key(0), slope, context)
    there = jax.tree.map(lambda p, d: p - d, params, step)
    p, q = (objective.distribution(x, batch)[0] for x in (params, there))
    divergence = float(jnp.mean(p.kl(q)))
    assert 0 < divergence <= 1.5 * max_kl
    assert float(surrogate(there, batch)) < float(surrogate(params, batch))
    # A line search that finds nothing better stays: uphill there is nothing.
    uphill = jax.tree.map(jnp.negative, slope)
    stay, _ = correction.gradient(jax.random.key(0), uphill, context)
    np.testing.assert_array_equal(stay["theta"], np.zeros((FEATURES, ACTIONS)))


def test_the_critic_keeps_its_own_gradient():
    family = envs.cartpole_family("packer-r", max_steps_in_episode=5)
    policy = policies.mlp_policy(family.env, hidden_sizes=(), shared_trunk=False)
    objective = learners.ppo(policy, num_envs=2, num_steps=5, surrogate="ratio")
    physics = jax.tree.map(lambda x: x[0], family.sample(jax.random.key(1), 1))
    params = objective.init(jax.random.key(2), family.env)
    state = objective.init_local(jax.random.key(3), family.env, physics, params)
    batch = objective.collect(jax.random.key(4), family.env, physics, params, state).batch
    loss = lambda p, b: objective.loss(jax.random.key(0), p, state, b)[0]  # noqa: E731
    context = Context(objective, state, loss, jax.grad(loss), params, params, params, batch, (), ())
    plain = context.gradient_at(params, batch)
    correction = learners.natural_gradient(damping=0.5, critic_scale=3.0)
    step, _ = correction.gradient(jax.random.key(0), plain, context)
    for name in ("kernel", "bias"):
        critic, before = step["params"]["critic"][name], plain["params"]["critic"][name]
        np.testing.assert_allclose(critic, 3 * before, rtol=1e-12)
        assert float(jnp.abs(before).max()) > 1e-4
    assert not np.allclose(step["params"]["actor"]["kernel"], plain["params"]["actor"]["kernel"])


# ---------------------------------------------------------------- objectives


def on_policy(*objectives):
    """Gradients of objectives on the data that each collects from one and the same key."""
    gradients = []
    for objective in objectives:
        physics = jax.tree.map(lambda x: x[0], FAMILY.sample(jax.random.key(1), 1))
        params = jax.tree.map(lambda x: x + 0.2, objective.init(jax.random.key(2), FAMILY.env))
        state = objective.init_local(jax.random.key(3), FAMILY.env, physics, params)

        def loss(params, objective=objective, physics=physics, state=state):
            here = jax.lax.stop_gradient(params)
            batch = objective.collect(jax.random.key(4), FAMILY.env, physics, here, state).batch
            return objective.loss(jax.random.key(0), params, state, batch)[0]

        gradients.append(jax.jit(jax.grad(loss))(params))
    return gradients


FAMILY = envs.cartpole_family("packer-r", max_steps_in_episode=5)
POLICY = policies.mlp_policy(FAMILY.env, hidden_sizes=(4,))
SHAPE = {"num_envs": 2, "num_steps": 8}


@pytest.mark.parametrize(
    "other",
    [
        learners.ppo(POLICY, surrogate="ratio", normalize_advantages=False, entropy_cost=0.01, gae_lambda=1.0, **SHAPE),
        learners.ppo(POLICY, surrogate="kl", normalize_advantages=False, entropy_cost=0.01, gae_lambda=1.0, **SHAPE),
        learners.a2c(POLICY, **SHAPE),
        learners.actor_critic(POLICY, num_steps_ahead=8, **SHAPE),
    ],
    ids=["ratio", "kl", "a2c", "n-step"],
)
def test_is_actor_critic_with_returns_to_the_end(other):
    # A ratio's gradient where it is one is that of log pi, and a divergence's is zero there.
    one, two = on_policy(learners.actor_critic(POLICY, gae_lambda=1.0, **SHAPE), other)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-10), one, two)

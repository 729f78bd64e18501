"""On-policy learning with a memory: what is collected, the loss through time, minibatches; against loops in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_rl import envs, learners, policies
from tests.oracles import policy_gradient
from tests.oracles import recurrent as oracle


GAMMA, LAMBDA, E, T = 0.97, 0.9, 2, 9
# Some episodes are truncated, some terminated, and most outlive a rollout.
FAMILY = envs.cartpole_family("packer-r", max_steps_in_episode=6, theta_threshold=0.09)
POLICY = policies.gru_policy(FAMILY.env, (), 2)


def setting(factory=learners.ppo, num_envs=E, policy=POLICY, **kwargs):
    """An objective, its collect, and the first parameters and state."""
    objective = factory(policy, num_envs=num_envs, num_steps=T, discount=GAMMA, **kwargs)
    physics = jax.tree.map(lambda x: x[0], FAMILY.sample(jax.random.key(1), 1))
    generator = np.random.default_rng(0)
    params = jax.jit(lambda: objective.init(jax.random.key(2), FAMILY.env))()
    params = jax.tree.map(lambda x: jnp.asarray(x + 0.3 * generator.normal(size=x.shape), x.dtype), params)
    state = jax.jit(lambda: objective.init_local(jax.random.key(3), FAMILY.env, physics, params))()

    @jax.jit
    def collect(key, params, state):
        trajectory, values, _, _ = objective.play(key, FAMILY.env, physics, params, state.rollout)
        return objective.collect(key, FAMILY.env, physics, params, state), trajectory, values

    return objective, collect, params, state


def theta_of(params):
    return jax.tree.map(np.array, params["params"])


def slopes(loss, theta, size=1e-6):
    """Central differences of loss(theta) in every entry."""
    gradient = jax.tree.map(np.zeros_like, theta)
    for name, layer in theta.items():
        for part, values in layer.items():
            for index in np.ndindex(*values.shape):
                ends = []
                for sign in (1, -1):
                    moved = jax.tree.map(np.copy, theta)
                    moved[name][part][index] += sign * size
                    ends.append(loss(moved))
                gradient[name][part][index] = (ends[0] - ends[1]) / (2 * size)
    return gradient


def oracle_batch(theta, memory, trajectory, state_after):
    """The rollout's values, advantages and targets, from the observations and the first memory alone."""
    t = jax.tree.map(np.asarray, trajectory)
    ended = t.terminated | t.truncated
    starts = np.concatenate([np.zeros((1, E), bool), ended[:-1]])
    logits, v, kept = oracle.play(theta, [memory], t.observation, starts)
    final = np.array(
        [[oracle.step(theta, kept[k][e], t.final_observation[k, e])[2] for e in range(E)] for k in range(T)]
    )
    after = [[m * ~ended[-1, e] for m in kept[-1][e]] for e in range(E)]
    last = np.array([oracle.step(theta, after[e], np.asarray(state_after.observation)[e])[2] for e in range(E)])
    A, target = policy_gradient.gae(
        t.reward, v, t.terminated, t.truncated, final, last, t.mask, GAMMA, LAMBDA
    )  # fmt: skip
    z = logits - logits.max(-1, keepdims=True)
    log_pi = z - np.log(np.exp(z).sum(-1, keepdims=True))
    log_mu = np.take_along_axis(log_pi, t.action[..., None], -1)[..., 0]
    cut = t.truncated & ~t.terminated
    return starts, log_mu, v, np.where(cut, final, 0), A, target, np.stack([m[0] for m in after])


def test_two_steps_of_ppo_through_time(x64):
    objective, collect, params, state = setting(gae_lambda=LAMBDA, entropy_cost=0.02)
    theta, memory, seen = theta_of(params), np.zeros((E, 2)), []
    gradient = jax.jit(jax.grad(lambda p, s, b: objective.loss(jax.random.key(0), p, s, b)[0]))
    for number in range(2):
        collected, trajectory, values = collect(jax.random.key(number), params, state)
        batch = collected.batch
        starts, log_mu, v, final, A, target, after = oracle_batch(theta, memory, trajectory, collected.state.rollout)
        # What was collected: rows are environments, and the memory they begin with is the one of the rollout before.
        np.testing.assert_array_equal(batch.recall.starts, starts.T)
        np.testing.assert_allclose(batch.recall.memory[0], memory, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(batch.log_prob.T, log_mu, rtol=1e-9)
        np.testing.assert_allclose(batch.value.T, v, rtol=1e-9)
        np.testing.assert_allclose(values.final_value, final, rtol=1e-9)
        A = policy_gradient.whiten(A, np.ones((T, E), bool))
        np.testing.assert_allclose(batch.advantage.T, A, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(batch.target.T, target, rtol=1e-9)
        np.testing.assert_allclose(collected.state.rollout.memory[0], after, rtol=1e-9, atol=1e-12)
        # Two gradient steps on it, so that the ratio of the second is not one.
        s, a = np.asarray(trajectory.observation), np.asarray(trajectory.action)
        for _ in range(2):

            def loss(theta, s=s, a=a, starts=starts, log_mu=log_mu, A=A, target=target, memory=memory):
                return oracle.ppo_loss(theta, [memory], s, starts, a, log_mu, A, target, 0.2, 0.5, 0.02)

            expected, found = slopes(loss, theta), gradient(params, collected.state, batch)
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), found["params"], expected)
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, found)
            theta = theta_of(params)
        memory, state = after, collected.state
        seen.append(trajectory)
    ended = [np.asarray(t.terminated | t.truncated) for t in seen]
    assert all(e[:-1].any() for e in ended)  # episodes end within, so that memories are emptied
    assert any((~np.asarray(t.terminated) & np.asarray(t.truncated)).any() for t in seen)
    assert not ended[0][-1].all()  # and one goes on in the next rollout


@pytest.mark.parametrize("factory", [learners.ppo, learners.actor_critic, learners.reinforce])
@pytest.mark.parametrize("episodes", ["continue", "fresh"])
def test_what_acted_is_what_learns(x64, factory, episodes):
    objective, collect, params, state = setting(factory, episodes=episodes)
    evaluate = jax.jit(objective.play.evaluate)
    for number in range(3):
        collected, trajectory, _ = collect(jax.random.key(number), params, state)
        batch, state = collected.batch, collected.state
        distribution, value = evaluate(params, batch)
        real = np.asarray(batch.mask)
        assert real.shape == (E, T)
        np.testing.assert_allclose(np.asarray(value)[real], np.asarray(batch.value)[real], rtol=1e-9)
        log_prob = np.asarray(distribution.log_prob(batch.action))
        np.testing.assert_allclose(log_prob[real], np.asarray(batch.log_prob)[real], rtol=1e-9)
        np.testing.assert_allclose(objective.log_prob(params, batch), np.where(real, log_prob, 0), rtol=1e-9)
        total = np.where(real, batch.log_prob, 0).sum(1, keepdims=True) * np.ones((1, T))
        summed = objective.over_trajectories(batch, jnp.where(batch.mask, batch.log_prob, 0))
        np.testing.assert_allclose(summed, total, rtol=1e-9)
        np.testing.assert_array_equal(trajectory.observation, np.swapaxes(batch.observation, 0, 1))
    assert (episodes == "fresh") == (not real.all())


def test_minibatches_are_made_of_environments(x64):
    objective, collect, params, _ = setting(num_envs=4)
    learner = learners.local_training(
        objective, learners.optimizer(optax.sgd, learning_rate=0.1), num_minibatches=2
    )  # fmt: skip
    physics = jax.tree.map(lambda x: x[0], FAMILY.sample(jax.random.key(1), 1))
    shared = jax.jit(lambda: learner.init_shared(jax.random.key(5), FAMILY.env))()._replace(params=params)
    local = jax.jit(lambda: learner.init_local(jax.random.key(3), FAMILY.env, physics, shared))()
    key = jax.random.key(7)
    after, envelope, _ = jax.jit(learner.update, static_argnums=1)(key, FAMILY.env, physics, shared, local, None)
    k_collect = jax.random.split(jax.random.fold_in(key, 0), 3)[0]
    batch = collect(k_collect, params, local.objective)[0].batch
    gradient = jax.jit(jax.grad(lambda p, b: objective.loss(key, p, local.objective, b)[0]))
    found = []
    for first in itertools.combinations(range(4), 2):
        trained = params
        for rows in (np.array(first), np.setdiff1d(np.arange(4), first)):
            part = jax.tree.map(lambda x, rows=rows: x[rows], batch)
            trained = jax.tree.map(lambda p, g: p - 0.1 * g, trained, gradient(trained, part))
        moved = jax.tree.map(lambda a, b: a - b, trained, params)
        leaves = zip(jax.tree.leaves(moved), jax.tree.leaves(envelope.payload.params), strict=True)
        found.append(all(np.allclose(x, y, rtol=1e-7, atol=1e-10) for x, y in leaves))
    assert sum(found) == 1  # exactly one of the six ways to halve four environments, in order
    assert after.objective.rollout.memory[0].shape == (4, 2)


def test_the_gradient_reaches_through_time(x64):
    # What a step does to the loss of later ones: without it the gradient is another.
    objective, collect, params, state = setting()
    batch = collect(jax.random.key(0), params, state)[0].batch
    cut = batch._replace(recall=batch.recall._replace(starts=jnp.ones_like(batch.recall.starts)))
    grad = jax.jit(jax.grad(lambda p, b: objective.loss(jax.random.key(0), p, state, b)[0]))
    far, near = grad(params, batch), grad(params, cut)
    assert np.abs(far["params"]["trunk_memory"]["memory_kernel"]).max() > 1e-6
    assert not near["params"]["trunk_memory"]["memory_kernel"].any()  # every step begins with an empty memory


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match="residual_gradient must be False with a policy that has a memory"):
        learners.actor_critic(POLICY, residual_gradient=True)
    objective = learners.ppo(POLICY, num_envs=4, num_steps=8)
    assert objective.batch_size == 4
    with pytest.raises(ValueError, match="num_minibatches must divide the 4"):
        learners.local_training(objective, learners.optimizer(optax.sgd, learning_rate=0.1), num_minibatches=8)

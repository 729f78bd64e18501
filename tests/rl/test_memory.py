"""What a rollout does with the memory of a policy: an environment that shows its clock tells what it must be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.rl import init_rollout, rollout
from tests.rl.counter import CounterPhysics, PooledCounter


T, E = 12, 3
KEY = jax.random.key(0)
NOISE = jnp.zeros((T, E))
# Terminations, time limits, and an episode that outlives the rollout.
PHYSICS = CounterPhysics(jnp.array([3, 9, 50]), jnp.array([7, 4, 60]), jnp.ones(3))


def act(noise, observation, steps, labels):
    """Counts its steps, and adds up what it has seen; returns what it remembered before."""
    return noise, (steps, labels), steps + 1, labels + observation[:, 1:] * jnp.ones((1, 2))


def start(env, num_envs=E):
    return init_rollout(KEY, env, PHYSICS, num_envs, (jnp.zeros(num_envs), jnp.zeros((num_envs, 2))))


@pytest.mark.parametrize("auto_reset", [True, False])
def test_memory_is_that_of_the_episode(auto_reset):
    env = PooledCounter()
    state, trajectory = jax.jit(
        lambda s: rollout(KEY, env, PHYSICS, act, NOISE, s, auto_reset=auto_reset)
    )(start(env))  # fmt: skip
    mask = np.asarray(trajectory.mask)
    clock, label = np.moveaxis(np.asarray(trajectory.observation), -1, 0)
    steps, labels = map(np.asarray, trajectory.extras)
    # It has counted as many steps as the episode's clock shows, and added up that many labels of this very episode.
    np.testing.assert_array_equal(steps[mask], clock[mask])
    np.testing.assert_array_equal(labels[mask], (clock * label)[mask][:, None] * np.ones(2))
    assert (trajectory.terminated | trajectory.truncated).any()
    if auto_reset:
        np.testing.assert_array_equal(state.memory[0], state.observation[:, 0])
        assert (steps[1:] < steps[:-1]).any()
    else:
        np.testing.assert_array_equal(state.memory[0], mask.sum(0))  # that of the end, where it stands still


def test_memory_persists_from_rollout_to_rollout():
    env = PooledCounter(labelled=False)
    end, whole = rollout(KEY, env, PHYSICS, act, NOISE, start(env))
    middle, first = rollout(KEY, env, PHYSICS, act, NOISE[:5], start(env))
    last, second = rollout(KEY, env, PHYSICS, act, NOISE[5:], middle)
    joined = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), first, second)
    jax.tree.map(np.testing.assert_array_equal, joined, whole)
    jax.tree.map(np.testing.assert_array_equal, last, end)
    assert (np.asarray(middle.memory[0]) > 1).any()  # some episode spans the two


def test_types_of_the_memory_are_a_fixed_point():
    env = PooledCounter()
    before = start(env)
    after, _ = jax.eval_shape(lambda s: rollout(KEY, env, PHYSICS, act, NOISE, s), before)
    kinds = [[(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(s)] for s in (before, after)]
    assert kinds[0] == kinds[1]


def test_a_policy_without_memory_adds_nothing_to_the_state():
    env = PooledCounter()
    state = init_rollout(KEY, env, PHYSICS, E)
    assert state.memory == ()
    after, _ = rollout(KEY, env, PHYSICS, lambda noise, observation: (noise, ()), NOISE, state)
    assert after.memory == ()

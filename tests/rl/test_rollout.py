"""Rollouts of environments whose every step is known beforehand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.envs import CartPole
from fedjax_rl.policies import mlp_policy
from fedjax_rl.rl import Episodes, Trajectory, ended_episodes, init_rollout, rollout
from tests.oracles import playing
from tests.rl.counter import Counter, CounterPhysics, Dice, PooledCounter


T, E = 12, 3
KEY = jax.random.key(0)
FIRST = 100 + np.arange(E)  # the labels that the counter gives to the first episodes
LABELS = (100 + np.arange(T * E)).reshape(T, E)
NOISE = jnp.asarray(np.random.default_rng(0).integers(0, 4, (T, E)), jnp.float32)


def act(noise, observation):
    return noise, {"seen": 2 * observation[:, 0]}


def play(env, physics, noise=NOISE, state=None, **kwargs):
    def run(physics, noise, state):
        start = init_rollout(KEY, env, physics, E) if state is None else state
        return rollout(KEY, env, physics, act, noise, start, **kwargs)

    return jax.jit(run)(physics, noise, state)


def assert_equals_oracle(trajectory: Trajectory, expected: dict[str, np.ndarray]):
    played = expected["mask"].any(1)  # nothing is computed once all stand still
    returns, lengths = expected.pop("episode_return"), expected.pop("episode_length")
    ended = expected["terminated"] | expected["truncated"]
    start = init_rollout(KEY, Counter(), NEITHER, E)  # no episode was under way
    assert ended_episodes(start, trajectory) == Episodes(ended.sum(), returns[ended].sum(), lengths[ended].sum())
    expected = {name: np.where(played.reshape(-1, *[1] * (x.ndim - 1)), x, 0) for name, x in expected.items()}
    for name, value in expected.items():
        np.testing.assert_array_equal(getattr(trajectory, name), value, err_msg=name)
    np.testing.assert_array_equal(trajectory.extras["seen"], 2 * expected["observation"][..., 0])


def oracle(physics: CounterPhysics, auto_reset: bool, labels=LABELS):
    terminate_at, limit, scale = (np.broadcast_to(np.asarray(x), (E,)) for x in physics)
    zeros = np.zeros(E)
    return playing.play(terminate_at, limit, scale, np.asarray(NOISE), zeros, FIRST, labels, zeros, auto_reset)


TERMINATES = CounterPhysics(3, 5, 0.5)
TRUNCATES = CounterPhysics(5, 3, 2.0)
BOTH = CounterPhysics(4, 4)
NEITHER = CounterPhysics(50, 60)
ONE_STEP = CounterPhysics(1, 5)
MIXED = CounterPhysics(jnp.array([3, 9, 2]), jnp.array([7, 4, 2]), jnp.array([1.0, 0.5, -1.0]))


@pytest.mark.parametrize("auto_reset", [True, False])
@pytest.mark.parametrize("physics", [TERMINATES, TRUNCATES, BOTH, NEITHER, ONE_STEP], ids=str)
def test_known_trajectories(physics, auto_reset):
    _, trajectory = play(Counter(), physics, auto_reset=auto_reset)
    assert_equals_oracle(trajectory, oracle(physics, auto_reset))


@pytest.mark.parametrize("auto_reset", [True, False])
def test_every_environment_may_have_its_own_physics(auto_reset):
    _, trajectory = play(PooledCounter(), MIXED, auto_reset=auto_reset)
    assert_equals_oracle(trajectory, oracle(MIXED, auto_reset))


def test_a_short_story_by_hand():
    # Ends after 2 steps (for good) or 3 (time limit); rewards are 1, 2, 3; the action adds nothing.
    physics = CounterPhysics(jnp.array([2, 9, 9]), jnp.array([9, 3, 9]), jnp.ones(3))
    state, trajectory = play(PooledCounter(), physics, jnp.zeros((4, E)))
    np.testing.assert_array_equal(trajectory.reward.T, [[1, 2, 1, 2], [1, 2, 3, 1], [1, 2, 3, 4]])
    np.testing.assert_array_equal(trajectory.terminated.T, [[0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(trajectory.truncated.T, [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(trajectory.observation[..., 0].T, [[0, 1, 0, 1], [0, 1, 2, 0], [0, 1, 2, 3]])
    np.testing.assert_array_equal(trajectory.final_observation[..., 0].T, [[1, 2, 1, 2], [1, 2, 3, 1], [1, 2, 3, 4]])
    start = init_rollout(KEY, PooledCounter(), physics, E)
    assert ended_episodes(start, trajectory) == Episodes(3, 3 + 3 + 6, 2 + 2 + 3)
    # What was under way before: 10 more rewards in 5 more steps where an episode has ended since, and not elsewhere.
    earlier = start._replace(episode_return=jnp.array([10.0, 10, 99]), episode_length=jnp.array([5, 5, 99]))
    assert ended_episodes(earlier, trajectory) == Episodes(3, 12 + 20, 7 + 10)
    np.testing.assert_array_equal(state.observation[:, 0], [0, 1, 4])
    np.testing.assert_array_equal(state.episode_return, [0, 1, 10])
    np.testing.assert_array_equal(state.episode_length, [0, 1, 4])
    # The episode of environment 0 that starts after step 3 was made from row (3, 0) of the resets, 100 + 3 * 3.
    np.testing.assert_array_equal(state.observation[:, 1], [109, 107, 102])


def test_two_short_rollouts_are_one_long_one():
    env = PooledCounter(labelled=False)
    end, whole = play(env, MIXED)
    middle, first = play(env, MIXED, NOISE[:5])
    last, second = play(env, MIXED, NOISE[5:], middle)
    joined = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), first, second)
    jax.tree.map(np.testing.assert_array_equal, joined, whole)
    jax.tree.map(np.testing.assert_array_equal, last, end)
    # Some episode spans the two calls, so the totals were carried over.
    assert (middle.episode_length > 0).any()
    start = init_rollout(KEY, env, MIXED, E)
    parts = (ended_episodes(start, first), ended_episodes(middle, second))
    assert jax.tree.map(jnp.add, *parts) == ended_episodes(start, whole)


def test_what_stands_still_stays_finite_although_its_physics_runs_away():
    env, physics = Counter(), CounterPhysics(9, 3)
    action = jnp.zeros(())
    reward = jnp.zeros(())
    observation, state = env.reset_from(jnp.float32(1), physics)
    for _ in range(4):
        observation, state, reward, *_ = env.step_env(KEY, state, action, physics)
    assert jnp.isnan(reward) and jnp.isnan(observation).any()  # one step beyond the limit
    state, trajectory = play(env, physics, auto_reset=False)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state, trajectory)))
    np.testing.assert_array_equal(trajectory.mask.sum(0), [3, 3, 3])
    np.testing.assert_array_equal(trajectory.truncated.sum(0), [1, 1, 1])
    assert not trajectory.reward[3:].any()


def test_agents_under_vmap_equal_agents_one_by_one():
    env = Counter()
    physics = CounterPhysics(jnp.array([2, 4, 9, 3]), jnp.array([9, 3, 5, 3]), jnp.array([1.0, 2.0, 3.0, 4.0]))
    noise = jnp.stack([NOISE, NOISE + 1, NOISE + 2, NOISE + 3])
    keys = jax.random.split(KEY, 4)

    def one(key, physics, noise):
        return rollout(key, env, physics, act, noise, init_rollout(key, env, physics, E))

    together = jax.jit(jax.vmap(one))(keys, physics, noise)
    for i in range(4):
        alone = one(keys[i], jax.tree.map(lambda x, i=i: x[i], physics), noise[i])
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x[i], y), together, alone)


def test_a_stochastic_environment_draws_anew_in_every_step_and_environment():
    def rewards(key):
        env = Dice()
        return rollout(key, env, None, act, NOISE, init_rollout(KEY, env, None, E))[1].reward

    first, again, other = rewards(jax.random.key(1)), rewards(jax.random.key(1)), rewards(jax.random.key(2))
    # Of 72 independent draws of 23 bits two coincide with probability 72^2 / 2 / 2^23 = 3e-4, and these keys are fixed.
    assert len(np.unique(np.stack([first, other]))) == 2 * T * E
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("auto_reset", [True, False])
@pytest.mark.parametrize("wide", [True, False])
def test_types_of_the_state_are_a_fixed_point(request, wide, auto_reset):
    if wide:
        request.getfixturevalue("x64")
    dtype = jnp.float64 if wide else jnp.float32
    for env, physics in ((Counter(), TERMINATES), (CartPole(), CartPole().default_params)):
        physics = jax.tree.map(jnp.asarray, physics)
        before = init_rollout(KEY, env, physics, E)
        noise = jnp.zeros((T, E), dtype if isinstance(env, Counter) else jnp.int32)
        after, trajectory = jax.eval_shape(
            lambda s, n, env=env, physics=physics: rollout(KEY, env, physics, act, n, s, auto_reset=auto_reset),
            before,
            noise,
        )
        kinds = [[(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(tree)] for tree in (before, after)]
        assert kinds[0] == kinds[1]
        floats = [x for x in jax.tree.leaves(trajectory) if jnp.issubdtype(x.dtype, jnp.floating)]
        assert {x.dtype for x in floats} == {jnp.dtype(dtype)}
        assert not any(x.weak_type for x in jax.tree.leaves(trajectory))


def test_cartpole_equals_a_loop_over_its_steps():
    env = CartPole()
    physics = env.default_params._replace(max_steps_in_episode=15, half_length=0.4)
    policy = mlp_policy(env, hidden_sizes=(8,))
    params = jax.tree.map(lambda x: 3 * x, policy.init(jax.random.key(3)))
    noise = policy.noise(jax.random.key(4), (40, 2))

    def sample(noise, observation):
        distribution, value = policy.apply(params, observation)
        return distribution.sample(noise), value

    start = init_rollout(jax.random.key(5), env, physics, 2)
    key = jax.random.key(6)
    end, trajectory = jax.jit(lambda s: rollout(key, env, physics, sample, noise, s))(start)
    assert trajectory.truncated.any() and trajectory.terminated.any()
    resets = np.asarray(env.reset_noise(jax.random.split(key)[0], (40, 2)))
    trajectory = jax.tree.map(np.asarray, trajectory)

    @jax.jit
    def step(state, action):
        observation, state, reward, terminated, _ = env.step_env(key, state, action, physics)
        return observation, state, reward, terminated, env.is_truncated(state, physics)

    reset = jax.jit(lambda noise: env.reset_from(noise, physics))
    for e in range(2):
        observation, state = start.observation[e], jax.tree.map(lambda x, e=e: x[e], start.env_state)
        for t in range(40):
            np.testing.assert_allclose(trajectory.observation[t, e], observation, rtol=1e-5, atol=1e-6)
            # The loop follows the rollout's actions: one rounding error could tip a sampled one over.
            observation, state, reward, terminated, truncated = step(state, trajectory.action[t, e])
            np.testing.assert_allclose(trajectory.final_observation[t, e], observation, rtol=1e-5, atol=1e-6)
            assert (terminated, truncated) == (trajectory.terminated[t, e], trajectory.truncated[t, e])
            assert reward == trajectory.reward[t, e]
            if terminated or truncated:
                observation, state = reset(resets[t, e])
        np.testing.assert_allclose(end.observation[e], observation, rtol=1e-5, atol=1e-6)


def test_whole_episodes_of_cartpole_have_their_lengths_as_returns():
    env = CartPole()
    physics = env.default_params._replace(max_steps_in_episode=60)
    policy = mlp_policy(env)
    params = policy.init(KEY)

    def sample(noise, observation):
        return policy.apply(params, observation)[0].sample(noise), ()

    def run(key):
        start = init_rollout(key, env, physics, 16)
        return rollout(key, env, physics, sample, policy.noise(key, (200, 16)), start, auto_reset=False)

    state, trajectory = jax.jit(run)(KEY)
    ended = trajectory.terminated | trajectory.truncated
    assert (ended.sum(0) == 1).all()
    np.testing.assert_array_equal(trajectory.reward.sum(0), trajectory.mask.sum(0))
    np.testing.assert_array_equal(state.episode_return, trajectory.reward.sum(0))
    np.testing.assert_array_equal(state.episode_length, trajectory.mask.sum(0))
    played = int(trajectory.mask.any(1).sum())
    computed = -(-played // 2) * 2  # of 200 steps, it looks after every second one whether all have ended
    assert played <= 60 and trajectory.observation[:played].any((1, 2)).all()
    assert not trajectory.observation[computed:].any()

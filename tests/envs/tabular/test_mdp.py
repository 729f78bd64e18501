"""The environments themselves: laws of what they draw, types, ends of episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.envs import EpisodicMDP, TabularMDP, inverse_cdf, mixture_family, synthetic_family
from tests.envs.tabular.laws import check_frequencies
from tests.oracles import finite_worlds as oracle


KEY = jax.random.key(0)


def one(family, agent=1):
    """The physics of one agent."""
    return jax.tree.map(lambda x: x[agent], family.sample(KEY, agent + 1))


def test_inverse_cdf_is_the_quantile():
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.dirichlet(np.ones(6)) * (rng.uniform(size=6) < 0.7)
        if p.sum() == 0:
            continue
        p = (p / p.sum()).astype(np.float32)
        u = rng.uniform(size=40).astype(np.float32)
        found = inverse_cdf(jnp.asarray(u), jnp.broadcast_to(p, (40, 6)))
        assert found.dtype == jnp.int32
        assert found.tolist() == [oracle.quantile(p.astype(np.float64), v) for v in u]


@pytest.mark.parametrize("double", [False, True])
def test_a_value_of_probability_zero_is_never_drawn(double, request):
    if double:
        request.getfixturevalue("x64")
    dtype = jnp.result_type(float)
    rng = np.random.default_rng(1)
    extremes = jnp.asarray([0.0, np.finfo(dtype).tiny, 0.5, 1 - np.finfo(dtype).epsneg], dtype)
    p = rng.dirichlet(np.full(97, 0.05), 2000) * (rng.uniform(size=(2000, 97)) < 0.3)
    p = p[p.sum(1) > 0]
    p = jnp.asarray(p / p.sum(1, keepdims=True), dtype) * (1 - 8 * np.finfo(dtype).eps)  # sums stay below the last u
    p = jnp.concatenate([p, jnp.eye(97, dtype=dtype)])
    for u in extremes:
        drawn = inverse_cdf(jnp.full(len(p), u, dtype), p)
        assert bool(jnp.all(p[jnp.arange(len(p)), drawn] > 0))


def test_transitions_have_the_law_of_the_kernel():
    params = one(mixture_family(6, 3, eps_p=0.5, branching=4))
    env, num = TabularMDP(6, 3), 20_000

    def step(key, state, action):
        _, start = env.reset(key, params)
        return env.step_env(key, start._replace(state=state), action, params)[1].state

    states, actions = jnp.meshgrid(jnp.arange(6), jnp.arange(3), indexing="ij")
    keys = jax.random.split(KEY, (6, 3, num))
    run = jax.jit(jax.vmap(jax.vmap(jax.vmap(step, (0, None, None)))))
    drawn = run(keys, states, actions)
    check_frequencies(drawn, params.kernel)


def test_resets_have_the_initial_law():
    params = one(mixture_family(4, 2))._replace(initial=jnp.array([0.5, 0.0, 0.2, 0.3]))
    env = TabularMDP(4, 2)
    observation, state = jax.vmap(env.reset_from, (0, None))(env.reset_noise(KEY, (40_000,)), params)
    check_frequencies(state.state, params.initial)
    np.testing.assert_array_equal(observation, np.eye(4)[state.state])


def test_transitions_of_each_step_have_their_own_law():
    params = one(synthetic_family(4, 2, 3, eps_p=0.5))
    env, num = EpisodicMDP(3, 4, 2), 20_000

    def play(key):
        k_reset, k_play = jax.random.split(key)

        def step(carry, key):
            k_act, k_step = jax.random.split(key)
            action = env.action_space().sample(k_act)
            observation, new, reward, terminated, _ = env.step_env(k_step, carry, action, params)
            return new, (carry.state, action, new.state, reward, terminated, observation)

        return jax.lax.scan(step, env.reset(k_reset, params)[1], jax.random.split(k_play, 3))[1]

    state, action, following, reward, terminated, observation = jax.jit(jax.vmap(play))(jax.random.split(KEY, num))
    np.testing.assert_array_equal(terminated, np.broadcast_to([False, False, True], (num, 3)))
    kernel = np.asarray(params.kernel)
    for h in range(3):
        np.testing.assert_allclose(reward[:, h], np.asarray(params.reward)[h, state[:, h], action[:, h]])
        expected = np.zeros((num, 12))
        if h < 2:
            expected[np.arange(num), 4 * (h + 1) + following[:, h]] = 1
        np.testing.assert_array_equal(observation[:, h], expected)
        for s in range(4):
            for a in range(2):
                here = (state[:, h] == s) & (action[:, h] == a)
                check_frequencies(following[:, h][here], kernel[h, s, a])


def test_a_finite_horizon_terminates_and_a_lower_limit_truncates():
    env = EpisodicMDP(3, 4, 2)
    params = one(synthetic_family(4, 2, 3))
    for limit, ends in ((3, "terminated"), (10, "terminated"), (2, "truncated")):
        state = env.reset(KEY, params)[1]
        for number in range(1, min(limit, 3) + 1):
            physics = params._replace(max_steps_in_episode=jnp.int32(limit))
            _, state, _, terminated, truncated, _ = env.step(KEY, state, jnp.int32(0), physics)
            last = number == min(limit, 3)
            assert bool(terminated) == (last and ends == "terminated")
            assert bool(truncated) == (last and ends == "truncated")
        assert int(state.time) == 0


def test_rewards_are_expected_ones_and_never_terminate():
    env, params = TabularMDP(5, 4), one(mixture_family(eps_r=0.5))
    state = env.reset(KEY, params)[1]
    for action in range(4):
        _, new, reward, terminated, _ = env.step_env(KEY, state, jnp.int32(action), params)
        assert float(reward) == float(params.reward[int(state.state), action])
        assert not terminated
        state = new


def test_default_physics_is_uniform():
    for env in (TabularMDP(3, 2), EpisodicMDP(4, 3, 2)):
        params = env.default_params
        np.testing.assert_allclose(params.kernel, 1 / 3)
        assert not np.any(params.reward)
        assert env.num_actions == 2 and env.num_states == 3
        jax.jit(lambda key, env=env: env.step(key, env.reset(key)[1], jnp.int32(1)))(KEY)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TabularMDP(0, 2), "state_size must be an integer >= 1, got 0"),
        (lambda: TabularMDP(2, 1.5), "action_size must be an integer >= 1, got 1.5"),
        (lambda: EpisodicMDP(0, 2, 2), "horizon must be an integer >= 1, got 0"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ValueError, match=words):
        make()

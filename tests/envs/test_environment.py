"""Episodes: resets, automatic resets, time limits, types, and use by others' code."""

import subprocess
import sys

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.wrappers.purerl import LogWrapper

from fedjax_rl.envs import (
    Box,
    CartPole,
    CartPoleParams,
    CartPoleState,
    Discrete,
    EpisodicMDP,
    GymnaxEnvironment,
    MountainCarContinuous,
    TabularMDP,
    gymnax_environment,
    gymnax_family,
    stacked,
)
from fedjax_rl.envs._liveness import dead_fields
from tests.envs import reference


OURS = [
    CartPole(),
    CartPole(continuous=True, reward="set_point"),
    MountainCarContinuous(),
    stacked(CartPole(), 3, True),
]
FINITE = [TabularMDP(4, 2), EpisodicMDP(30, 3, 2)]
LIGHT = [
    "Pendulum-v1",
    "Acrobot-v1",
    "MountainCar-v0",
    "FrozenLake-misc",
    "UmbrellaChain-bsuite",
    "BernoulliBandit-misc",
]
REFUSED = ("CartPole-v1", "MountainCarContinuous-v0", "MNISTBandit-bsuite")
ALL = [name for name in gymnax.registered_envs if name not in REFUSED]


def avals(tree):
    """Types of the leaves, weak types included."""
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), jax.eval_shape(lambda: tree))


def check_episodes(env, physics, num_steps=12):
    """Resets and steps agents of different physics under jit and vmap, and checks what a scan and a learner rely on."""

    def play(key, params):
        observation, state = env.reset(key, params)

        def body(carry, key):
            observation, state = carry
            action = env.action_space().sample(key)
            observation, state, reward, terminated, truncated, info = env.step(key, state, action, params)
            return (observation, state), (
                observation,
                reward,
                terminated,
                truncated,
                info["final_observation"],
                state.time,
            )

        return observation, jax.lax.scan(body, (observation, state), jax.random.split(key, num_steps))[1]

    num_agents = len(jax.tree.leaves(physics)[0])
    keys = jax.random.split(jax.random.key(0), num_agents)
    first, (observation, reward, terminated, truncated, last, time) = jax.jit(jax.vmap(play))(keys, physics)
    assert first.shape == (num_agents, *env.observation_space().shape)
    assert observation.shape == last.shape == (num_agents, num_steps, *first.shape[1:])
    assert first.ndim == 2
    assert jnp.issubdtype(first.dtype, jnp.floating)
    assert reward.shape == terminated.shape == truncated.shape == (num_agents, num_steps)
    assert jnp.issubdtype(reward.dtype, jnp.floating)
    assert terminated.dtype == truncated.dtype == jnp.bool_
    assert all(bool(jnp.isfinite(x).all()) for x in (first, observation, reward, last))
    ended = np.asarray(terminated | truncated)
    # The clock restarts with the episode, and only then does the observation differ from the final one.
    np.testing.assert_array_equal(np.asarray(time)[ended], 0)
    np.testing.assert_array_equal(np.asarray(observation)[~ended], np.asarray(last)[~ended])
    limits = np.asarray(physics.max_steps_in_episode)
    for agent in range(num_agents):
        clock = 0
        for step in range(num_steps):
            clock += 1
            assert truncated[agent, step] == (clock >= limits[agent])
            clock = 0 if ended[agent, step] else clock
    return ended


@pytest.mark.parametrize("env", OURS, ids=repr)
def test_our_episodes(env):
    physics = jax.tree.map(lambda value: jnp.full(3, value, jnp.result_type(value)), env.default_params)
    ended = check_episodes(env, physics._replace(max_steps_in_episode=jnp.array([3, 5, 500])))
    np.testing.assert_array_equal(ended[0], np.arange(12) % 3 == 2)
    np.testing.assert_array_equal(ended[1], np.arange(12) % 5 == 4)


@pytest.mark.parametrize("name", LIGHT)
def test_gymnax_episodes(name):
    check_episodes(
        gymnax_environment(name), gymnax_family(name, max_steps_in_episode=(3, 6)).sample(jax.random.key(0), 3)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALL if name not in LIGHT])
def test_every_gymnax_environment(name):
    check_episodes(
        gymnax_environment(name), gymnax_family(name, max_steps_in_episode=(3, 6)).sample(jax.random.key(0), 3)
    )


@pytest.mark.parametrize("env", [*OURS, *FINITE, *map(gymnax_environment, LIGHT)], ids=lambda env: env.name)
@pytest.mark.parametrize("double", [False, True])
def test_a_step_keeps_the_types_of_the_state(env, double, request):
    if double:
        if env.name == "UmbrellaChain-bsuite":
            pytest.skip("its observations are single precision by construction")
        request.getfixturevalue("x64")
    state = env.reset(jax.random.key(0))[1]
    for params in (env.default_params, jax.tree.map(jnp.asarray, env.default_params)):
        observation, state = env.reset(jax.random.key(0), params)
        action = env.action_space().sample(jax.random.key(1))
        new, stepped, reward, *_ = env.step_env(jax.random.key(2), state, action, params)
        assert avals(stepped) == avals(state)
        assert avals(new) == avals(observation)
        assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, observation, reward)))
        assert state.time.dtype == jnp.int32 or isinstance(env, GymnaxEnvironment)
        assert observation.dtype == (jnp.float64 if double else jnp.float32)


@pytest.mark.parametrize(
    "env", [*OURS, gymnax_environment("Pendulum"), gymnax_environment("Reacher")], ids=lambda env: env.name
)
def test_bulk_resets_are_single_resets(env):
    noise = env.reset_noise(jax.random.key(3), (4, 5))
    assert all(leaf.shape[:2] == (4, 5) for leaf in jax.tree.leaves(noise))
    observation, state = jax.vmap(jax.vmap(lambda n: env.reset_from(n, env.default_params)))(noise)
    one, _ = env.reset_from(jax.tree.map(lambda leaf: leaf[2, 3], noise), env.default_params)
    np.testing.assert_allclose(observation[2, 3], one, atol=1e-6)
    assert jax.tree.leaves(state)[0].shape[:2] == (4, 5)
    assert len(np.unique(np.asarray(observation).reshape(20, -1), axis=0)) == 20


def test_cartpole_starts_uniformly():
    # n = 40 000 starts of 4 coordinates. Kolmogorov-Smirnov: sup |F_n - F| > 2.23 / sqrt(n) with probability at most
    # 2 exp(-2 * 2.23^2) < 1e-4 for each coordinate; the grid of 2^16 values adds at most 2^-16.
    # Correlations: each of the 6 pairs is normal with variance 1/n, so |r| < 4.5 / sqrt(n) but for 7e-6 each.
    num = 40_000
    env = CartPole()
    starts, state = jax.vmap(lambda noise: env.reset_from(noise, env.default_params))(
        env.reset_noise(jax.random.key(5), (num,))
    )
    uniform = (np.sort(np.asarray(starts, np.float64), axis=0) + 0.05) / 0.1
    assert uniform.min() > 0
    assert uniform.max() < 1
    steps = np.arange(1, num + 1)[:, None] / num
    assert np.abs(uniform - steps).max() < 2.23 / np.sqrt(num) + 2**-16 + 1 / num
    correlations = np.corrcoef(np.asarray(starts).T)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(num)
    np.testing.assert_array_equal(state.time, 0)


def test_random_policy_on_cartpole():
    # n = 4 096 episodes here and 4 096 in Gymnasium, of about 22 steps. The difference of the means is normal, and
    # exceeds 5 standard errors (about 5 * 0.26 = 1.3 steps) with probability 6e-7. Likewise for the standard
    # deviations, whose standard error is s sqrt((kurtosis - 1) / (4 n)) < 0.02 s for kurtosis 7.
    env, num = CartPole(), 4096

    def episode_length(key):
        _, state = env.reset(key)

        def body(carry, k):
            state, alive, length = carry
            action = jax.random.randint(k, (), 0, 2)
            _, new, _, terminated, _ = env.step_env(k, state, action, env.default_params)
            state = jax.tree.map(lambda a, b: jnp.where(alive, a, b), new, state)
            return (state, alive & ~terminated, length + alive), None

        # An episode of 250 random steps has a probability below 1e-6.
        (_, alive, length), _ = jax.lax.scan(body, (state, True, 0), jax.random.split(jax.random.fold_in(key, 1), 250))
        return length, alive

    lengths, alive = jax.jit(jax.vmap(episode_length))(jax.random.split(jax.random.key(11), num))
    assert not alive.any()
    expected = reference.episode_lengths("CartPole-v1", num)
    ours = np.asarray(lengths, np.float64)
    assert 20 < expected.mean() < 25
    assert abs(ours.mean() - expected.mean()) < 5 * np.hypot(ours.std(), expected.std()) / np.sqrt(num)
    assert abs(ours.std() / expected.std() - 1) < 5 * np.sqrt(2) * 0.02


def test_automatic_reset_keeps_the_final_observation():
    env = CartPole()
    falling = CartPoleState(jnp.array([0.0, 0.0, 0.2, 2.0]), jnp.int32(7))  # theta after the step: 0.24 > 12 degrees
    observation, state, reward, terminated, truncated, info = env.step(jax.random.key(0), falling, jnp.int32(1))
    final, *_ = env.step_env(jax.random.key(0), falling, jnp.int32(1), env.default_params)
    assert terminated and not truncated
    assert float(reward) == 1.0
    np.testing.assert_array_equal(info["final_observation"], final)
    assert abs(float(final[2]) - 0.24) < 1e-6
    assert float(jnp.abs(observation).max()) < 0.05
    np.testing.assert_array_equal(state.coordinates, observation)
    assert int(state.time) == 0

    upright = falling._replace(coordinates=jnp.zeros(4), time=jnp.int32(499))
    _, state, reward, terminated, truncated, _ = env.step(jax.random.key(0), upright, jnp.int32(1))
    assert truncated and not terminated
    assert float(reward) == 1.0
    assert int(state.time) == 0


def test_a_gymnax_user_can_use_our_cartpole():
    env = LogWrapper(CartPole())
    params = env.default_params
    num_envs, num_steps = 16, 300

    # The usual gymnax loop, with its handling of keys and legacy keys.
    def step(carry, _):
        key, observation, state = carry
        key, k_action, k_step = jax.random.split(key, 3)
        action = jax.random.randint(k_action, (num_envs,), 0, env.num_actions)
        observation, state, reward, terminated, truncated, info = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
            jax.random.split(k_step, num_envs), state, action, params
        )
        return (key, observation, state), (reward, terminated | truncated, info["returned_episode_returns"])

    for make_key in (jax.random.key, jax.random.PRNGKey):
        observation, state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(make_key(0), num_envs), params)
        _, (reward, ended, returns) = jax.lax.scan(step, (make_key(1), observation, state), None, num_steps)
        assert ended.sum() > 100
        # Every reward belongs to an episode: with rewards 1 the return is the distance between two ends.
        for e in range(num_envs):
            ends = np.flatnonzero(ended[:, e])
            np.testing.assert_array_equal(np.asarray(returns)[ends[1:], e], np.diff(ends))
        np.testing.assert_array_equal(reward, 1.0)


def test_environments_are_structure():
    assert CartPole() == CartPole() and hash(CartPole()) == hash(CartPole())
    assert CartPole() != CartPole(continuous=True)
    assert gymnax_environment("pendulum") is gymnax_environment("Pendulum-v1")
    assert gymnax_environment("DeepSea", size=4) is not gymnax_environment("DeepSea", size=5)
    assert not jax.tree.leaves(CartPole().default_params._replace(**dict.fromkeys(CartPoleParams._fields)))


def test_spaces():
    assert CartPole().num_actions == gymnax_environment("acrobot").num_actions - 1 == 2
    assert not hasattr(CartPole(continuous=True), "num_actions")
    assert isinstance(CartPole().action_space(), Discrete)
    box = MountainCarContinuous().observation_space()
    np.testing.assert_allclose(box.high, [0.6, 0.07])
    for space in (box, CartPole().observation_space(), Discrete(3), Box(0.0, np.inf, (2,)), Box(-np.inf, 1.0, (2,))):
        samples = jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 50))
        assert samples.shape == (50, *space.shape) and samples.dtype == space.dtype
        assert jax.vmap(space.contains)(samples).all()
    assert not box.contains(jnp.array([0.7, 0.0]))
    assert not Discrete(3).contains(3) and not Discrete(3).contains(-1)
    assert gymnax_environment("FrozenLake").observation_space().shape == (16,)
    assert gymnax_environment("PointRobot").action_space().shape == (2,)
    assert gymnax_environment("Breakout").observation_space().shape == (400,)


def test_categories_are_one_hot():
    env = gymnax_environment("FrozenLake")
    observation, state = env.reset(jax.random.key(0))
    np.testing.assert_array_equal(
        observation, np.eye(16)[int(state.position)] if hasattr(state, "position") else np.eye(16)[0]
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CartPole(reward="sutton"), ("reward", "sutton", "survival")),
        (lambda: gymnax_environment("CartPole-v1"), ("stale", "cartpole_family")),
        (lambda: GymnaxEnvironment(gymnax.make("CartPole-v1")[0]), ("CartPole-v1", "cartpole_family")),
        (
            lambda: GymnaxEnvironment(gymnax.make("MountainCarContinuous-v0")[0]),
            ("left wall", "MountainCarContinuous()"),
        ),
        (lambda: gymnax_environment("MNISTBandit-bsuite"), ("MNISTBandit", "downloads")),
        (lambda: gymnax_environment("Pendulun"), ("did you mean 'Pendulum-v1'", "Pendulun")),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ValueError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


def test_dead_parameters_are_found():
    assert dead_fields(gymnax_environment("Acrobot")) == {"link_length_2"}
    assert dead_fields(gymnax_environment("Pendulum")) == set()
    assert dead_fields(MountainCarContinuous()) == set()
    # Its regret, which no agent sees, is all that reads it.
    assert dead_fields(gymnax_environment("SimpleBandit")) == {"optimal_return"}
    # Without the reward that asks for it, nothing reads the set point.
    assert dead_fields(CartPole()) == {"set_point"}
    assert dead_fields(CartPole(reward="set_point")) == set()


def test_importing_the_environments_is_light():
    code = (
        "import sys, fedjax_rl.envs; "
        "heavy = {'gymnax', 'gymnasium', 'pandas', 'matplotlib', 'seaborn', 'pyarrow'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

"""One step from random situations, ours against Gymnasium's own."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.core import EnvFamily, compiler_options
from fedjax_rl.envs import CartPoleState, Environment, cartpole_family, gymnax_family
from fedjax_rl.envs._cartpole_family import PHYSICS_SETS
from tests.envs import reference


SINGLE, DOUBLE = 5e-6, 1e-12  # times max(1, |x|)

# Every published set with 4 000 situations: 20 000 in all.
CARTPOLES = {f"cartpole-{name}": cartpole_family(name, x_threshold=(2.0, 2.8)) for name in PHYSICS_SETS}
OTHERS = {
    "pendulum": gymnax_family("Pendulum-v1", spread=0.3, dt=(0.02, 0.08), max_torque=(1.0, 3.0), max_speed=(4.0, 9.0)),
    "pendulum-packer-e": gymnax_family("Pendulum-v1", "packer-e"),
    "acrobot": gymnax_family("Acrobot-v1", spread=0.3, max_vel_1=(8.0, 14.0), max_vel_2=(20.0, 30.0)),
    "acrobot-packer-r": gymnax_family("Acrobot-v1", "packer-r"),
    "acrobot-jin": gymnax_family("Acrobot-v1", "jin"),
    "mountain-car": gymnax_family(
        "MountainCar-v0", spread=0.5, goal_position=(0.3, 0.55), min_position=(-1.3, -1.1), max_speed=(0.05, 0.09)
    ),
    "mountain-car-packer-e": gymnax_family("MountainCar-v0", "packer-e"),
    "continuous-mountain-car": gymnax_family(
        "MountainCarContinuous-v0",
        power=(0.0005, 0.003),
        goal_position=(0.3, 0.55),
        goal_velocity=(0.0, 0.02),
        min_position=(-1.3, -1.1),
        max_speed=(0.05, 0.09),
    ),
}
FAMILIES = {**CARTPOLES, **OTHERS}

# States are drawn from boxes that reach over every threshold.
STATES = {
    "CartPole-v1": [(-2.9, 2.9), (-3, 3), (-0.3, 0.3), (-3, 3)],
    "Pendulum-v1": [(-4, 4), (-9, 9)],
    "Acrobot-v1": [(-np.pi, np.pi), (-np.pi, np.pi), (-6, 6), (-12, 12)],
    "MountainCar-v0": [(-1.3, 0.6), (-0.09, 0.09)],
    "MountainCarContinuous-v0": [(-1.3, 0.6), (-0.09, 0.09)],
}


class Situations(NamedTuple):
    physics: Any  # [n, ...]
    state: np.ndarray  # [n, state size]
    time: np.ndarray  # i32[n]
    action: np.ndarray  # [n] or [n, 1]


def situations(family: EnvFamily, num: int) -> Situations:
    """Random situations; every tenth is one step before the time limit."""
    random = np.random.default_rng(0)
    physics = family.sample(jax.random.key(1), num)
    dtype = np.float64 if jax.config.read("jax_enable_x64") else np.float32
    state = np.stack([random.uniform(low, high, num) for low, high in STATES[family.env.name]], axis=1).astype(dtype)
    limit = np.asarray(physics.max_steps_in_episode)
    time = random.integers(0, limit).astype(np.int32)
    time[::10] = limit[::10] - 1
    space = family.env.action_space()
    action = random.integers(0, space.n, num) if hasattr(space, "n") else random.uniform(-3, 3, (num, 1)).astype(dtype)
    return Situations(physics, state, time, action)


@functools.cache
def stepper(env: Environment) -> Callable[..., Any]:
    """One compiled step of many situations."""
    _, template = env.reset(jax.random.key(0))

    def one(physics, state, time, action):
        before = reference.our_state(env.name, template, state, time)
        _, after, reward, terminated, _ = env.step_env(jax.random.key(0), before, action, physics)
        numbers = jnp.stack(reference.coordinates(env.name, after))
        return numbers, reward, terminated, env.is_truncated(after, physics)

    # As rounds are compiled, whatever the tests' own level: rounding in float32 depends on it.
    return jax.jit(jax.vmap(one), compiler_options=compiler_options(jax.default_backend()))


def play(family: EnvFamily, given: Situations) -> reference.Steps:
    """The same steps in our environment."""
    return reference.Steps(*map(np.asarray, stepper(family.env)(*jax.tree.map(jnp.asarray, given))))


def error(name: str, ours: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Differences relative to max(1, |x|); angles of Acrobot modulo 2 pi, where a rounding may wrap."""
    difference = ours.astype(np.float64) - truth
    if name == "Acrobot-v1":
        difference[:, :2] = (difference[:, :2] + np.pi) % (2 * np.pi) - np.pi
    return np.abs(difference) / np.maximum(1, np.abs(truth))


def distance_to_threshold(name: str, truth: reference.Steps, physics: Any) -> np.ndarray:
    """How far a state is from where `terminated` switches."""
    columns = list(truth.state.T)
    if name == "CartPole-v1":
        x, _, theta, _ = columns
        return np.minimum(np.abs(np.abs(x) - physics.x_threshold), np.abs(np.abs(theta) - physics.theta_threshold))
    if name == "Acrobot-v1":
        return np.abs(-np.cos(columns[0]) - np.cos(columns[0] + columns[1]) - 1)
    if name == "Pendulum-v1":
        return np.full(len(truth.reward), np.inf)
    position, velocity = columns
    return np.abs(np.minimum(position - physics.goal_position, velocity - physics.goal_velocity))


@pytest.mark.parametrize("label", FAMILIES)
def test_one_step_in_single_precision(label):
    family = FAMILIES[label]
    name = family.env.name
    given = situations(family, 4000)
    truth = reference.steps(name, given.physics, given.state.astype(np.float64), given.time, given.action)
    ours = play(family, given)
    assert ours.state.dtype == ours.reward.dtype == np.float32
    assert error(name, ours.state, truth.state).max() <= SINGLE
    np.testing.assert_array_equal(ours.truncated, truth.truncated)
    # A state may be rounded across a threshold; anywhere else the flags are those of double precision.
    sure = distance_to_threshold(name, truth, given.physics) > 2 * SINGLE
    assert sure.sum() >= 3990
    np.testing.assert_array_equal(ours.terminated[sure], truth.terminated[sure])
    np.testing.assert_array_less(error("", ours.reward[sure], truth.reward[sure]), SINGLE)
    assert truth.truncated.sum() >= 400
    assert truth.terminated.sum() >= (0 if name == "Pendulum-v1" else 100)


@pytest.mark.parametrize("label", FAMILIES)
def test_one_step_in_double_precision(label, x64, monkeypatch):
    family = FAMILIES[label]
    name = family.env.name
    reference.without_rounding(monkeypatch)
    given = situations(family, 4000)
    truth = reference.steps(name, given.physics, given.state, given.time, given.action)
    ours = play(family, given)
    assert ours.state.dtype == ours.reward.dtype == np.float64
    assert error(name, ours.state, truth.state).max() <= DOUBLE
    assert error("", ours.reward, truth.reward).max() <= DOUBLE
    np.testing.assert_array_equal(ours.terminated, truth.terminated)
    np.testing.assert_array_equal(ours.truncated, truth.truncated)


def test_continuous_cartpole_at_full_force_is_the_discrete_one(x64):
    discrete, continuous = cartpole_family("packer-e"), cartpole_family("packer-e", continuous=True)
    given = situations(discrete, 1000)
    expected = play(discrete, given)
    # Beyond 1 the force is clipped.
    actual = play(continuous, given._replace(action=np.where(given.action == 1, 1.0, -7.0)[:, None]))
    for left, right in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(left, right)


def test_reversed_motor_swaps_the_actions(x64):
    family = cartpole_family("packer-r")
    given = situations(family, 1000)
    swapped = given._replace(
        physics=given.physics._replace(actuator_polarity=-given.physics.actuator_polarity), action=1 - given.action
    )
    for left, right in zip(play(family, swapped), play(family, given), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    ("x", "set_point", "expected"),
    # tau x' = 0.02 * 0.5 = 0.01 brings the cart to x + 0.01; the reward is 1 - |x + 0.01 - set point|, at least 0.
    [(0.0, 0.0, 0.99), (0.99, 1.0, 1.0), (0.49, -0.25, 0.25), (-0.76, 0.5, 0.0), (1.0, -1.5, 0.0)],
)
def test_set_point_reward(x, set_point, expected, x64):
    env = cartpole_family(set_point=0.5).env
    state = CartPoleState(jnp.array([x, 0.5, 0.0, 0.0]), jnp.int32(0))
    _, _, reward, _, _ = env.step_env(
        jax.random.key(0), state, jnp.int32(1), env.default_params._replace(set_point=set_point)
    )
    np.testing.assert_allclose(reward, expected, atol=1e-12)


def test_continuous_mountain_car_leaves_the_left_wall():
    env = gymnax_family("MountainCarContinuous-v0").env
    _, template = env.reset(jax.random.key(0))
    state = reference.our_state(env.name, template, jnp.array([-1.19, -0.05]), jnp.int32(0))
    positions = []
    for _ in range(20):
        observation, state, *_ = env.step_env(jax.random.key(0), state, jnp.array([1.0]), env.default_params)
        positions.append(float(observation[0]))
    # It hits the wall with velocity -0.05 and loses it there; cos(-3.6) < 0 then pushes it off at once.
    assert positions[0] == np.float32(-1.2)
    assert np.all(np.diff(positions) > 0)

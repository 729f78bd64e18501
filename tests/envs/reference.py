"""Gymnasium stepped once from given physics, state and action: the truth the environments are compared with."""

import types
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.envs.classic_control import continuous_mountain_car

from fedjax_rl.envs import CartPoleState, MountainCarState


class Steps(NamedTuple):
    """What happened in n independent steps, in float64."""

    state: np.ndarray  # [n, state size]
    reward: np.ndarray  # [n]
    terminated: np.ndarray  # bool[n]
    truncated: np.ndarray  # bool[n]


# Field of the physics -> attribute of Gymnasium's environment, where they are called differently.
ATTRIBUTES = {
    "CartPole-v1": {
        "half_length": "length",
        "theta_threshold": "theta_threshold_radians",
        "actuator_polarity": None,
        "set_point": None,
    },
    "Acrobot-v1": {
        "link_length_1": "LINK_LENGTH_1",
        "link_length_2": "LINK_LENGTH_2",
        "link_mass_1": "LINK_MASS_1",
        "link_mass_2": "LINK_MASS_2",
        "link_com_pos_1": "LINK_COM_POS_1",
        "link_com_pos_2": "LINK_COM_POS_2",
        "link_moi": "LINK_MOI",
        "max_vel_1": "MAX_VEL_1",
        "max_vel_2": "MAX_VEL_2",
        "available_torque": "AVAIL_TORQUE",
    },
    "MountainCarContinuous-v0": {"gravity": None},  # 0.0025 is written into its code
}


def steps(name: str, physics: Any, state: np.ndarray, time: np.ndarray, action: np.ndarray) -> Steps:
    """Plays one step from each of n situations in Gymnasium's own environment.

    Args:
        name: the environment's id.
        physics: parameters as our environments take them, leaves [n, ...].
        state: f64[n, state size] in Gymnasium's order.
        time: i32[n] steps taken before.
        action: [n] or [n, action size].
    """
    limited = gymnasium.make(name, disable_env_checker=True)
    assert isinstance(limited, gymnasium.wrappers.TimeLimit)
    limited.reset(seed=0)
    env: Any = limited.unwrapped
    columns = physics._asdict() if hasattr(physics, "_asdict") else vars(physics)
    columns = {key: np.asarray(value, np.float64) for key, value in columns.items()}
    limits = columns.pop("max_steps_in_episode")
    names = ATTRIBUTES.get(name, {})
    pairs = [(names.get(key, key), values) for key, values in columns.items() if names.get(key, key) is not None]
    outcomes = []
    for i in range(len(state)):
        for attribute, values in pairs:
            assert hasattr(env, attribute), attribute
            setattr(env, attribute, values[i])
        if name == "CartPole-v1":  # computed once in its __init__, so stale by now
            env.total_mass = env.masscart + env.masspole
            env.polemass_length = env.masspole * env.length
            env.steps_beyond_terminated = None
        env.state = state[i].copy()
        limited._elapsed_steps, limited._max_episode_steps = int(time[i]), int(limits[i])
        _, reward, terminated, truncated, _ = limited.step(action[i])
        outcomes.append((np.asarray(env.state, np.float64), reward, terminated, truncated))
    return Steps(*(np.asarray(column) for column in zip(*outcomes, strict=True)))


def episode_lengths(name: str, num: int) -> np.ndarray:
    """Lengths of episodes of the uniformly random policy, i64[num]."""
    env = gymnasium.make(name, disable_env_checker=True)
    env.reset(seed=0)
    actions = np.random.default_rng(0)
    lengths = []
    for _ in range(num):
        env.reset()
        length, ended = 0, False
        while not ended:
            _, _, terminated, truncated, _ = env.step(int(actions.integers(2)))
            length, ended = length + 1, terminated or truncated
        lengths.append(length)
    return np.array(lengths)


def without_rounding(monkeypatch: Any) -> None:
    """Lets MountainCarContinuous keep its state in double precision; it rounds to single after each step."""
    numpy_without_single = types.SimpleNamespace(array=np.array, float32=np.float64)
    monkeypatch.setattr(continuous_mountain_car, "np", numpy_without_single)


def our_state(name: str, template: Any, state: Any, time: Any) -> Any:
    """One of our states from Gymnasium's order of numbers; `template` is any state of that environment."""
    if name == "CartPole-v1":
        return CartPoleState(state, time)
    if name == "MountainCarContinuous-v0":
        return MountainCarState(state, time)
    fields = {
        "Pendulum-v1": ("theta", "theta_dot"),
        "Acrobot-v1": ("joint_angle1", "joint_angle2", "velocity_1", "velocity_2"),
        "MountainCar-v0": ("position", "velocity"),
    }[name]
    return template.replace(**dict(zip(fields, state, strict=True)), time=time)


def coordinates(name: str, state: Any) -> list[Any]:
    """The numbers of one of our states in Gymnasium's order."""
    if hasattr(state, "coordinates"):
        return list(state.coordinates)
    if name == "Pendulum-v1":
        return [state.theta, state.theta_dot]
    if name == "Acrobot-v1":
        return [state.joint_angle1, state.joint_angle2, state.velocity_1, state.velocity_2]
    return [state.position, state.velocity]

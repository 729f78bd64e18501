"""MountainCarContinuous, with the left wall as in Gymnasium."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._environment import Environment
from ._physics import POSITIVE, Rule
from ._spaces import Box


class MountainCarParams(NamedTuple):
    """Physics of a weak car between two hills; lengths in the task's own unit, per step."""

    min_action: Any = -1.0
    max_action: Any = 1.0
    min_position: Any = -1.2
    max_position: Any = 0.6
    max_speed: Any = 0.07
    goal_position: Any = 0.45
    goal_velocity: Any = 0.0
    power: Any = 0.0015
    gravity: Any = 0.0025
    max_steps_in_episode: Any = 999


class MountainCarState(NamedTuple):
    """Where the car is."""

    coordinates: jax.Array  # [2] position, velocity
    time: jax.Array  # i32[] steps since the reset


RULES = {
    "max_speed": POSITIVE,
    "power": POSITIVE,
    "gravity": Rule(low=0.0),
    "max_steps_in_episode": Rule(low=1, integer=True),
}


@dataclasses.dataclass(frozen=True)
class MountainCarContinuous(Environment):
    """A car that must swing itself up a hill (MountainCarContinuous-v0).

        v <- clip(v + power clip(a, min_action, max_action) - gravity cos(3 p), -max_speed, max_speed)
        p <- clip(p + v, min_position, max_position), and v <- 0 when the car hits the left wall

    The reward is -0.1 a^2, and 100 more when the goal is reached, which terminates the episode. An episode starts at
    rest, uniformly in [-0.6, -0.4]. gymnax stops the car at the goal instead of at the left wall, where its car
    sticks; this one follows Gymnasium.

    Reference:
        Moore, "Efficient memory-based learning for robot control", 1990; Gymnasium 1.3 `MountainCarContinuous-v0`.
    """

    @property
    def name(self) -> str:
        return "MountainCarContinuous-v0"

    @property
    def default_params(self) -> MountainCarParams:
        return MountainCarParams()

    @property
    def rules(self) -> Mapping[str, Rule]:
        return RULES

    def reset_noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """float[*shape]: start positions."""
        return jax.random.uniform(key, shape, minval=-0.6, maxval=-0.4)

    def reset_from(self, noise: jax.Array, params: MountainCarParams) -> tuple[jax.Array, MountainCarState]:
        position = noise.astype(jnp.result_type(float, *params))
        coordinates = jnp.stack([position, jnp.zeros_like(position)])
        return coordinates, MountainCarState(coordinates, jnp.int32(0))

    def step_env(
        self, key: jax.Array, state: MountainCarState, action: jax.Array, params: MountainCarParams
    ) -> tuple[jax.Array, MountainCarState, jax.Array, jax.Array, dict[str, Any]]:
        del key
        dtype = state.coordinates.dtype
        position, velocity = state.coordinates
        action = jnp.reshape(action, ())
        force = jnp.clip(action, params.min_action, params.max_action)

        velocity = velocity + force * params.power - params.gravity * jnp.cos(3 * position)
        velocity = jnp.clip(velocity, -params.max_speed, params.max_speed)
        position = jnp.clip(position + velocity, params.min_position, params.max_position)
        at_wall = jnp.logical_and(position == params.min_position, velocity < 0)
        velocity = jnp.where(at_wall, 0, velocity)

        terminated = jnp.logical_and(position >= params.goal_position, velocity >= params.goal_velocity)
        reward = (jnp.where(terminated, 100.0, 0.0) - 0.1 * action**2).astype(dtype)
        coordinates = jnp.stack([position, velocity]).astype(dtype)
        return coordinates, MountainCarState(coordinates, state.time + 1), reward, terminated, {}

    def observation_space(self, params: MountainCarParams | None = None) -> Box:
        params = self.default_params if params is None else params
        low = np.array([float(params.min_position), -float(params.max_speed)])
        high = np.array([float(params.max_position), float(params.max_speed)])
        return Box(low, high, (2,))

    def action_space(self, params: MountainCarParams | None = None) -> Box:
        params = self.default_params if params is None else params
        return Box(float(params.min_action), float(params.max_action), (1,))

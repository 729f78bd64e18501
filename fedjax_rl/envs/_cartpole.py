"""CartPole with per-agent physics."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.core import check_choice

from ._environment import Environment
from ._physics import POSITIVE, Rule
from ._spaces import Box, Discrete


class CartPoleParams(NamedTuple):
    """Physics of a cart with a pole; total mass and the like follow from it and are never stored."""

    gravity: Any = 9.8  # [m/s^2]
    masscart: Any = 1.0  # [kg]
    masspole: Any = 0.1  # [kg]
    half_length: Any = 0.5  # [m] from the pivot to the pole's centre of mass; Gymnasium and gymnax call it `length`
    force_mag: Any = 10.0  # [N]
    tau: Any = 0.02  # [s] between two decisions
    theta_threshold: Any = 12 * math.pi / 180  # [rad] a greater angle ends the episode
    x_threshold: Any = 2.4  # [m] a greater distance ends the episode
    max_steps_in_episode: Any = 500
    actuator_polarity: Any = 1.0  # -1: the motor is wired the wrong way round
    set_point: Any = 0.0  # [m] where the reward "set_point" wants the cart


class CartPoleState(NamedTuple):
    """Where the cart and its pole are."""

    coordinates: jax.Array  # [4] x [m], x' [m/s], theta [rad], theta' [rad/s]; one array, so that a scan carries little
    time: jax.Array  # i32[] steps since the reset


RULES = {
    "gravity": Rule(low=0.0),
    "masscart": POSITIVE,
    "masspole": POSITIVE,
    "half_length": POSITIVE,
    "force_mag": POSITIVE._replace(remedy="a reversed motor is actuator_polarity=-1"),
    "tau": POSITIVE,
    "theta_threshold": Rule(low=0.0, high=math.pi, open_low=True, remedy="the angle is in radians"),
    "x_threshold": POSITIVE,
    "max_steps_in_episode": Rule(low=1, integer=True),
    "actuator_polarity": Rule(values=(-1.0, 1.0)),
    "set_point": Rule(),
}


@dataclasses.dataclass(frozen=True)
class CartPole(Environment):
    """A pole on a cart, to be kept upright by pushing the cart (CartPole-v1).

        s = (F + m_p l theta'^2 sin theta) / (m_c + m_p)
        theta'' = (g sin theta - s cos theta) / (l (4/3 - m_p cos^2 theta / (m_c + m_p)))
        x'' = s - m_p l theta'' cos theta / (m_c + m_p)

    integrated by one explicit Euler step per decision, as in Gymnasium. The pole has half-length l, mass m_p; F is
    +force_mag for action 1, -force_mag for action 0, times the actuator's polarity. An episode starts uniformly in
    [-0.05, 0.05]^4 (on a grid of 65 536 values a coordinate: 16 random bits suffice and are twice as fast as 32), is
    terminated when |theta| or |x| exceeds its threshold and truncated after `max_steps_in_episode`.

    Args:
        continuous: the action is a in R^1 and F = force_mag clip(a, -1, 1).
        reward: "survival": 1 for each step, the failing one included, as in Gymnasium;
            "set_point" (ours, not published): max(0, 1 - |x - set_point|) at the position reached [m]. The set point
            is not observed, so agents with different ones want different things in the same situation.

    Reference:
        Barto, Sutton, Anderson, "Neuronlike adaptive elements that can solve difficult learning control problems",
        IEEE Transactions on Systems, Man, and Cybernetics, 1983; Gymnasium 1.3 `CartPole-v1`. Actuator polarity and
        set point are ours.
    """

    continuous: bool = False
    reward: str = "survival"

    def __post_init__(self) -> None:
        check_choice("reward", self.reward, ("survival", "set_point"))

    @property
    def name(self) -> str:
        return "CartPole-v1"

    @property
    def default_params(self) -> CartPoleParams:
        return CartPoleParams()

    @property
    def rules(self) -> Mapping[str, Rule]:
        return RULES

    def reset_noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """u32[*shape, 2]: four times 16 random bits."""
        return jax.random.bits(key, (*shape, 2), jnp.uint32)

    def reset_from(self, noise: jax.Array, params: CartPoleParams) -> tuple[jax.Array, CartPoleState]:
        dtype = jnp.result_type(float, *params)
        bits = jnp.concatenate([noise & 0xFFFF, noise >> 16]).astype(dtype)
        coordinates = (bits + 0.5) * (0.1 / 0x10000) - 0.05
        return coordinates, CartPoleState(coordinates, jnp.int32(0))

    def step_env(
        self, key: jax.Array, state: CartPoleState, action: jax.Array, params: CartPoleParams
    ) -> tuple[jax.Array, CartPoleState, jax.Array, jax.Array, dict[str, Any]]:
        del key
        dtype = state.coordinates.dtype
        _, speed, theta, theta_speed = state.coordinates
        total_mass = params.masscart + params.masspole
        pole_moment = params.masspole * params.half_length
        cos, sin = jnp.cos(theta), jnp.sin(theta)

        push = (self._force(action, params) + pole_moment * theta_speed**2 * sin) / total_mass
        theta_acceleration = (params.gravity * sin - cos * push) / (
            params.half_length * (4.0 / 3.0 - params.masspole * cos**2 / total_mass)
        )
        acceleration = push - pole_moment * theta_acceleration * cos / total_mass
        derivative = jnp.stack([speed, acceleration.astype(dtype), theta_speed, theta_acceleration.astype(dtype)])
        coordinates = (state.coordinates + params.tau * derivative).astype(dtype)

        terminated = jnp.logical_or(
            jnp.abs(coordinates[0]) > params.x_threshold, jnp.abs(coordinates[2]) > params.theta_threshold
        )
        reward = jnp.ones((), dtype)
        if self.reward == "set_point":
            reward = jnp.maximum(0, 1 - jnp.abs(coordinates[0] - params.set_point)).astype(dtype)
        return coordinates, CartPoleState(coordinates, state.time + 1), reward, terminated, {}

    def _force(self, action: jax.Array, params: CartPoleParams) -> jax.Array:
        """The force on the cart [N]."""
        if self.continuous:
            size = jnp.clip(jnp.reshape(action, ()), -1, 1) * params.force_mag
        else:
            size = jnp.where(action == 1, params.force_mag, -params.force_mag)
        return size * params.actuator_polarity

    def observation_space(self, params: CartPoleParams | None = None) -> Box:
        params = self.default_params if params is None else params
        high = np.array([2 * float(params.x_threshold), np.inf, 2 * float(params.theta_threshold), np.inf])
        return Box(-high, high, (4,))

    def action_space(self, params: CartPoleParams | None = None) -> Box | Discrete:
        return Box(-1.0, 1.0, (1,)) if self.continuous else Discrete(2)

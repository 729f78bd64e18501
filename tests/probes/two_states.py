"""Worlds whose action values are known: two states, and a bandit with an arm for every number."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.envs import Box, Discrete, Environment


class Physics(NamedTuple):
    max_steps_in_episode: Any = 3


class State(NamedTuple):
    place: jax.Array  # i32[]
    time: jax.Array  # i32[]


class Probe(Environment):
    """What both worlds share."""

    name = "probe"
    default_params = Physics()


REWARD = ((0.0, -1.0), (0.0, 2.0))  # [place][action]


@dataclasses.dataclass(frozen=True)
class TwoStates(Probe):
    """The action is the next place; observed one-hot. `ends`: staying in place 1 ends the episode for good."""

    ends: bool = False

    def reset_noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.randint(key, shape, 0, 2, jnp.int32)

    def reset_from(self, noise: jax.Array, params: Physics) -> tuple[jax.Array, State]:
        return self._observe(noise), State(noise, jnp.int32(0))

    def step_env(self, key: jax.Array, state: State, action: jax.Array, params: Physics) -> Any:
        reward = jnp.asarray(REWARD, jnp.result_type(float))[state.place, action]
        over = (state.place == 1) & (action == 1) & self.ends
        return self._observe(action), State(action, state.time + 1), reward, over, {}

    def observation_space(self, params: Any = None) -> Box:
        return Box(0.0, 1.0, (2,))

    def action_space(self, params: Any = None) -> Discrete:
        return Discrete(2)

    def values(self, discount: float) -> np.ndarray:
        """Q*[place, action], by iterating the optimality equation."""
        q = np.zeros((2, 2))
        for _ in range(500):
            q = np.array([
                [REWARD[s][a] + discount * (0.0 if self.ends and s == a == 1 else q[a].max()) for a in range(2)]
                for s in range(2)
            ])  # fmt: skip
        return q

    def _observe(self, place: jax.Array) -> jax.Array:
        return jax.nn.one_hot(place, 2, dtype=jnp.result_type(float))


@dataclasses.dataclass(frozen=True)
class Arms(Probe):
    """One step, reward -(a - best)^2, actions in [-1, 3]."""

    best: float = 2.0

    def reset_noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jnp.zeros(shape, jnp.int32)

    def reset_from(self, noise: jax.Array, params: Physics) -> tuple[jax.Array, State]:
        return jnp.ones((1,)), State(noise, jnp.int32(0))

    def step_env(self, key: jax.Array, state: State, action: jax.Array, params: Physics) -> Any:
        reward = -((action[0] - self.best) ** 2)
        return jnp.ones((1,)), State(state.place, state.time + 1), reward, jnp.bool_(True), {}

    def observation_space(self, params: Any = None) -> Box:
        return Box(1.0, 1.0, (1,))

    def action_space(self, params: Any = None) -> Box:
        return Box(-1.0, 3.0, (1,))

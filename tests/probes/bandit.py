"""A one-step bandit whose arms pay what the agent's physics says: the expected return is sum_a pi(a) reward_a."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.core import EnvFamily, component
from fedjax_rl.envs import Box, Discrete, Environment


class BanditPhysics(NamedTuple):
    reward: Any = (0.0, 1.0)  # f[A]
    max_steps_in_episode: Any = 1


class BanditState(NamedTuple):
    time: jax.Array  # i32[]


@dataclasses.dataclass(frozen=True)
class Bandit(Environment):
    """Observes a constant; every step ends the episode."""

    @property
    def name(self) -> str:
        return "bandit"

    @property
    def default_params(self) -> BanditPhysics:
        return BanditPhysics()

    def reset_noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jnp.ones(shape)

    def reset_from(self, noise: jax.Array, params: BanditPhysics) -> tuple[jax.Array, BanditState]:
        return noise[None], BanditState(jnp.int32(0))

    def step_env(
        self, key: jax.Array, state: BanditState, action: jax.Array, params: BanditPhysics
    ) -> tuple[jax.Array, BanditState, jax.Array, jax.Array, dict[str, Any]]:
        reward = jnp.asarray(params.reward)[action]
        return jnp.ones(1, reward.dtype), BanditState(state.time + 1), reward, jnp.bool_(True), {}

    def observation_space(self, params: BanditPhysics | None = None) -> Box:
        return Box(0.0, 1.0, (1,))

    def action_space(self, params: BanditPhysics | None = None) -> Discrete:
        return Discrete(2)


@component
class BanditFamily(EnvFamily):
    """Agent k's arms pay 0 and 1 + k / 4."""

    env = Bandit()

    def sample(self, key: jax.Array, num_agents: int) -> BanditPhysics:
        best = 1 + jnp.arange(num_agents) / 4
        return BanditPhysics(jnp.stack([jnp.zeros_like(best), best], -1), jnp.ones(num_agents, jnp.int32))
